from benchmarks.benchmark_options import RESULTS, benchmark_parser, out_folder

DESCRIPTION = """A first line.

    python -m command

A paragraph whose lines are longer than the terminal is wide, so that help that kept them would break in the middle.

- an item of a list that is longer than the terminal is wide, so that it goes on in a line of its own, indented
- another
"""


def test_help_keeps_paragraphs_and_lists_within_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = benchmark_parser(DESCRIPTION).format_help().splitlines()

    assert max(map(len, lines)) <= 60
    assert {"A first line.", "    python -m command", "- another"} <= set(lines)
    item = lines.index("- an item of a list that is longer than the terminal is")
    assert lines[item + 1] == "  wide, so that it goes on in a line of its own, indented"


def test_a_quick_run_is_saved_only_on_request(tmp_path):
    parser = benchmark_parser(DESCRIPTION)

    assert out_folder(parser.parse_args([])) == RESULTS
    assert out_folder(parser.parse_args(["--quick"])) is None
    assert out_folder(parser.parse_args(["--quick", "--out", str(tmp_path)])) == tmp_path
