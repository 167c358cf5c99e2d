"""How the command line reads its words."""

from __future__ import annotations

import pytest

from launch.cli import _options


@pytest.mark.parametrize(
    "words",
    [
        ["run", "r.yaml", "seed=7", "name=x", "--until", "extract"],
        ["run", "r.yaml", "--until", "extract", "seed=7", "name=x"],
        ["run", "r.yaml", "seed=7", "--until", "extract", "name=x"],
    ],
)
def test_overrides_may_stand_before_and_after_options(words) -> None:
    options = _options(words)
    assert (options.recipe, options.overrides, options.until) == ("r.yaml", ["seed=7", "name=x"], "extract")


@pytest.mark.parametrize("word", ["--nonsense", "-x"])
def test_an_unknown_option_is_refused(word, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        _options(["run", "r.yaml", word])
    assert stopped.value.code == 2
    assert word in capsys.readouterr().err
