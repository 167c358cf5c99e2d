"""`twofold resume-test`: prove on the user's machine that an interrupted run loses nothing.

Contract: trains a shortened plan of the recipe (every phase, `steps` steps each, the recipe's own model,
data and batch) once without interruption, then again while stopping it after random steps and at every
phase's end, killing a random rank with SIGKILL at a random moment of a step (so within an accumulation
window, too), and damaging the newest checkpoint. Losses, norms, rates, batches, token counts and weights must
be equal bit for bit. Where two ranks or more can run, it trains a third time while the number of ranks
changes at every stop (1 -> 2 -> 1): batches, rates and token counts equal, losses up to the order of float sums.
With `kills`, it trains once more while SIGKILL ends a random rank that many times: while it starts, in a
step, while a checkpoint is written.

Moments are drawn from a seed. Folders in <run_dir>/resume-test are replaced.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from configs.checks import batch_problem
from configs.schema import Recipe
from launch.preflight import choose_device
from launch.resume_trials import Check, Moment, Trials, compare, on_this_machine, shortened
from launch.runner import run_recipe
from pretrain import layout
from pretrain.checkpoints.manifest import committed

_MOMENTS: tuple[Moment, ...] = ("start", "step", "step", "save")


def resume_test(
    recipe: Recipe, console: Console, steps: int, seed: int, same_ranks: bool = False, kills: int = 0
) -> bool:
    """Run the trials and print the results; True if everything is equal."""
    made = run_recipe(recipe, console, until="shards").artifacts
    short = shortened(on_this_machine(recipe), steps)
    root = Path(recipe.run_dir) / "resume-test"
    total = sum(phase.steps for phase in short.phases)
    console.print(f"[bold]uninterrupted[/bold]  {total} steps")
    whole = Trials(short, made["shards"], made["tokenizer"], root / "uninterrupted")
    whole.train()
    checks = _interrupted(whole, root / "interrupted", random.Random(seed), console)
    if not same_ranks:
        checks += _elastic(whole, root / "elastic", console)
    if kills:
        checks += _killed(whole, root / "killed", kills, seed, console)
    table = Table("", "what", "", box=None, pad_edge=False)
    for check in checks:
        mark = "[green]equal[/green]" if check.passed else "[bold red]DIFFERS[/bold red]"
        table.add_row(mark, check.name, check.detail)
    console.print(table)
    return all(check.passed for check in checks)


def _interrupted(whole: Trials, folder: Path, draw: random.Random, console: Console) -> list[Check]:
    trials = Trials(whole.recipe, whole.shards, whole.tokenizer, folder)
    ends = []
    first = 0
    for phase in whole.recipe.phases:
        last = first + phase.steps
        stop = draw.randint(first + 1, max(first + 1, last - 2))
        trials.train("--stop-after-step", str(stop))
        ends.append(f"stopped after {stop}")
        ends.append(_kill(trials, min(stop + 1, last), draw))
        if last > trials.done:
            trials.train("--stop-after-step", str(last))
            ends.append(f"stopped at the phase's end, {last}")
        first = last
    ends.append(f"{_damage_newest(folder)} damaged")
    console.print(f"[bold]interrupted[/bold]  {', '.join(ends)}")
    trials.train()
    return compare(whole, trials, ends[:1], exactly=True)


def _kill(trials: Trials, step: int, draw: random.Random) -> str:
    """Kill a random rank behind `step`; what came of it, since a kill that meets nobody does not count."""
    met = trials.kill_at("step", step, draw.random(), draw.random())
    return f"killed after step {trials.done}" if met else "not killed (training had ended)"


def _elastic(whole: Trials, folder: Path, console: Console) -> list[Check]:
    device, most = choose_device(whole.recipe)
    fits = [
        ranks
        for ranks in (1, 2, 4)
        if (ranks <= max(most, 2) if device == "cpu" else ranks <= most)
        and not any(batch_problem(whole.recipe, phase, ranks, "") for phase in whole.recipe.phases)
    ]
    if len(fits) < 2:
        console.print("[bold]number of ranks[/bold]  not changed: fewer than two ranks fit this machine and batch")
        return []
    total = sum(phase.steps for phase in whole.recipe.phases)
    trials = Trials(whole.recipe, whole.shards, whole.tokenizer, folder)
    way = [fits[0], *fits[1:], fits[0]]
    console.print(f"[bold]number of ranks[/bold]  {' -> '.join(map(str, way))}")
    for number, ranks in enumerate(way[:-1], start=1):
        trials.train("--stop-after-step", str(max(1, total * number // len(way))), ranks=ranks)
    trials.train(ranks=way[-1])
    return compare(whole, trials, [f"ranks {' -> '.join(map(str, way))}"], exactly=False)


def _damage_newest(folder: Path) -> str:
    newest = committed(folder / layout.CHECKPOINTS_DIR)[-1]
    file = sorted(newest.glob("state/*"))[-1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return newest.name


def _killed(whole: Trials, folder: Path, kills: int, seed: int, console: Console) -> list[Check]:
    """Kill a random rank `kills` times, each time the training that goes on after the last one."""
    trials = Trials(whole.recipe, whole.shards, whole.tokenizer, folder)
    total = sum(phase.steps for phase in whole.recipe.phases)
    saved = [0, *(event["step"] for event in whole.events("checkpoint"))]
    interval = max(later - earlier for earlier, later in pairwise(saved))
    table = Table("kill", "moment", "at step", "checkpoint", "done again", box=None, pad_edge=False)
    wrong, again, missed = [], [], 0
    for number in range(1, kills + 1):
        draw = random.Random(f"{seed}/{number}")
        newest, moment = trials.newest_checkpoint(), draw.choice(_MOMENTS)
        # Spread over the whole training; a save comes when it comes.
        ahead = (
            interval + 1 if moment == "save" else math.ceil(draw.uniform(number - 1, number) * total / kills) - newest
        )
        step = min(newest + max(1, ahead), total - 1)
        missed += not trials.kill_at(moment, step, draw.random(), draw.random())
        if moment != "start":  # then it may be killed before it says where it begins
            wrong += [event["step"] for event in trials.events("start")[-1:] if event["step"] != newest]
        again.append(max(0, trials.done - trials.newest_checkpoint()))
        table.add_row(str(number), moment, str(trials.done), str(trials.newest_checkpoint()), str(again[-1]))
    console.print(table)
    trials.train()
    return [
        *compare(whole, trials, [f"a rank killed {kills} times"], exactly=True),
        Check("each kill hit a rank", not missed, f"{missed} came too late" if missed else ""),
        Check("each start resumes from the newest checkpoint", not wrong, f"not these: {wrong}" if wrong else ""),
        Check("steps done again", max(again) <= 2 * interval, f"at most {max(again)}, a checkpoint every {interval}"),
        Check("no process is left", not trials.left_behind, ""),
    ]
