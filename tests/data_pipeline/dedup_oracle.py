"""The dedup stage over one table in memory, without tasks, files and parts: what the stage must write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from configs.schema import Recipe
from data_pipeline.features import minhash
from data_pipeline.stages import near_pairs, score


def clusters_and_pairs(recipe: Recipe, attributes: pa.Table) -> tuple[dict[str, list[Any]], list[tuple[Any, ...]]]:
    """The columns of `dedup.CLUSTERS`, and the rows of `dedup.PAIRS` in order."""
    data, count = recipe.data, attributes.num_rows
    exact = [int.from_bytes(value, "little") for value in attributes["exact_hash"].to_pylist()]
    copies = np.array([[value % 2**64, value >> 64] for value in exact], np.uint64).reshape(-1, 2)
    sizes = attributes["bytes"].to_numpy()
    sketches = np.array([list(sketch) for sketch in attributes["sketch"].to_pylist()], np.uint8)

    def similar(pairs: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        estimate, error = minhash.similarity(sketches[pairs[:, 0]], sketches[pairs[:, 1]])
        return pairs[estimate - error >= threshold], estimate[estimate - error >= threshold]

    shared = [
        near_pairs.to_compare(attributes[key].to_numpy(), copies, sizes)
        for key in score.bucket_columns(data.near_duplicates)
    ]
    together = np.concatenate([np.zeros((0, 2), np.int64), *shared])
    near, similarity = similar(near_pairs.unique(np.sort(together, axis=1)), data.near_duplicates.threshold)
    same_exact = [(one, other) for one in range(count) for other in range(one) if exact[one] == exact[other]]
    pages = np.zeros((0, 2), np.int64)
    if data.url_duplicates:
        rows = np.array([row for row, url in enumerate(attributes["url_hash"].to_pylist()) if url], np.int64)
        urls = [attributes["url_hash"][row].as_py() for row in rows.tolist()]
        keys = np.array([int.from_bytes(url[:8], "little") for url in urls], np.uint64)
        alone = np.stack([rows, rows], axis=1).astype(np.uint64).reshape(-1, 2)
        same_url = rows[near_pairs.to_compare(keys, alone, sizes[rows])]
        pages = near_pairs.same_pages(similar(same_url, data.url_duplicates_threshold)[0])
    names = {"exact_cluster": same_exact, "url_cluster": pages.tolist()}
    names["cluster"] = [*same_exact, *names["url_cluster"], *near.tolist()]
    columns: dict[str, list[Any]] = {"document": list(range(count))}
    columns |= {name: _sets(links, count) for name, links in names.items()}
    columns["cluster_size"] = [
        columns["cluster"].count(name) if name is not None else None for name in columns["cluster"]
    ]
    return columns, [(*pair, value) for pair, value in zip(near.tolist(), similarity.tolist(), strict=True)]


def _sets(links: list[Any], count: int) -> list[int | None]:
    """The smallest member of the set of each document that is linked: names spread until nothing changes."""
    names = list(range(count))
    changed = True
    while changed:
        changed = False
        for one, other in links:
            if names[one] != names[other]:
                names[one] = names[other] = min(names[one], names[other])
                changed = True
    linked = {member for link in links for member in link}
    return [name if row in linked else None for row, name in enumerate(names)]
