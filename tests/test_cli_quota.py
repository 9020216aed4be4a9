"""``vivavoce simulate-ptu``: what it prints, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vivavoce.cli import main

RECORDED = Path(__file__).parent / "gateway" / "shared" / "data" / "recorded_traffic.jsonl"
TRAFFIC = ("--calls-per-minute", "30", "--prompt", "2000", "--output", "100", "--minutes", "4")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["simulate-ptu", *arguments]) == 0
    return capsys.readouterr().out


def test_the_plot_and_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, *TRAFFIC, "--ptus", "15").splitlines()
    assert lines[0].startswith("  1")
    assert [line for line in lines if line.startswith(" 100 % ┼")]
    assert lines[12].startswith("     0 └──")
    assert lines[13].endswith("4.017 min")
    assert lines[15:] == [
        "15 PTU of gpt-4o: 37,500 input tokens a minute, one of output counts for 3",
        "120 calls: 80 admitted, 40 refused (429)",
        "utilization: 113% at most, 94% on average",
        "nothing is refused from 25 PTU on",
    ]


def test_without_units_it_takes_as_many_as_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing is refused from 25 PTU on" in run(capsys, *TRAFFIC)
    told = json.loads(run(capsys, *TRAFFIC, "--json"))
    assert (told["ptus"], told["ptus_needed"], told["refused"], told["calls"]) == (25, 25, 0, 120)
    assert len(told["utilization"]) == 240
    assert told["peak_utilization"] == max(step["utilization"] for step in told["utilization"])
    regional = json.loads(run(capsys, *TRAFFIC, "--regional", "--json"))
    assert regional["ptus"] == 50


def test_a_realtime_model_says_whose_throughput_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, *TRAFFIC, "--model", "gpt-4o-realtime-preview")
    assert "(those of gpt-4o; no page tells of gpt-4o-realtime-preview)" in said


def test_the_drawing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, *TRAFFIC, "--ptus", "15", "--svg", str(tmp_path / "plot.svg"))
    drawing = ElementTree.parse(tmp_path / "plot.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(drawing.findall(f"{space}g/{space}circle")) == 40
    line = drawing.find(f"{space}polyline")
    assert line is not None
    assert len(line.attrib["points"].split()) > 400
    assert "80 calls admitted, 40 refused (429)" in "".join(drawing.itertext())


def test_recorded_requests(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = json.loads(run(capsys, "--recorded", str(RECORDED), "--json"))
    assert told["calls"] == 51
    table = tmp_path / "traffic.csv"
    table.write_text("time,prompt_tokens,output_tokens,max_tokens\n100,40000,10,\n160.5,10,10,20\n101,5,5,5\n")
    told = json.loads(run(capsys, "--recorded", str(table), "--ptus", "15", "--json"))
    assert [(step["time"], step["what"]) for step in told["utilization"]] == [
        *[(0, "admitted"), (0, "ended"), (1, "refused"), (60.5, "admitted"), (60.5, "ended")]
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "gpt-2"], "nothing is known of the throughput of 'gpt-2' (there are: "),
        (["--prompt", "10", "--cached", "11"], "more of the prompt is cached than there is"),
        (["--calls-per-minute", "0"], "there is no call in it"),
        (["--arrivals", "never"], "even or random"),
        (["--calls-per-minute", "100000", "--minutes", "600"], "60,000,000 calls; no more than "),
        (["--svg", "no/such/folder.svg"], "no/such/folder.svg cannot be written: No such file or directory"),
        (["--recorded", "nowhere.csv"], "nowhere.csv cannot be read"),
    ],
)
def test_what_cannot_be_simulated(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["simulate-ptu", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"time": 1}\n', "line 1: Object missing required field `prompt_tokens`"),
        ("a.jsonl", "\nnothing\n", "line 2: this is no JSON"),
        ("a.csv", "time,prompt_tokens,output_tokens\n1,2,x\n", "line 2: Expected `int`, got `str`"),
        ("a.csv", "time,prompt_tokens,output_tokens\n1,2,-3\n", "line 2: a number below 0"),
        ("a.csv", "time,prompt_tokens,output_tokens,cached_tokens\n1,2,3,4\n", "line 2: more of the prompt"),
        ("a.csv", "time,prompt_tokens,output_tokens\n", "has no request"),
    ],
)
def test_recordings_that_cannot_be_read(
    name: str, text: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["simulate-ptu", "--recorded", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err
