import json

import pytest

from benchmarks.command import command_speed


@pytest.mark.slow
def test_a_round_times_every_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["command_speed", "--quick", "--out", str(tmp_path)])
    command_speed.main(command_speed._parse())

    results = json.loads((tmp_path / "command_speed.json").read_text())
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[: len(command_speed.COMMANDS)]] == list(command_speed.COMMANDS)
    medians = {kind: results[kind]["median_seconds"] for kind in command_speed.COMMANDS}
    assert all(seconds > 0 for seconds in medians.values())
    assert medians["help"] < medians["start_up"] < medians["cold"]
