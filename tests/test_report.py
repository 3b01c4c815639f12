"""The report: complete, self-contained, and in a real browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import Process
from made import make_config, make_run, make_sweep

from memrl.__main__ import main
from memrl.results.report import changed_keys, page
from memrl.results.runs import Run, load
from memrl.results.scores import PROTOCOLS, score

Launch = Callable[..., Process]
CAUSE = "<script>document.title = 'broken'</script> & \"quotes\""
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lengths, two models, three seeds; a failed run, a running one and a foreign folder."""
    cwd = tmp_path_factory.mktemp("sweep")
    folder = make_sweep(cwd, seeds=3)
    status = {"state": "failed", "cause": CAUSE, "progress": 0.5, "env_steps": 3000}
    failed = make_run(cwd, [0.1] * 5, "env.length=10", "seed=8", "sweep=made", status=status)
    (failed / "run.log").write_text("Traceback")
    versions = {"torch": "2.12.0", "device": "cuda"}
    make_run(
        cwd, [0.2] * 5, "env.length=10", "algo.lr=0.01", "sweep=made", status={"versions": versions}
    )
    (folder / "notes").mkdir()
    return folder


def report(*folders: Path, protocol: str = "last") -> str:
    runs = load(*folders)
    return page(runs, score(runs, PROTOCOLS[protocol]), "made")


@pytest.fixture(scope="module")
def text(sweep: Path) -> str:
    """The report on that sweep."""
    return report(sweep)


class Reader(HTMLParser):
    """Collects links, tables and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self.tags: list[str] = []
        self._table: list[list[str]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given[name] or "" for name in ("src", "href") if name in given]
        if tag == "table":
            self._table = self.tables.setdefault(given.get("id") or str(len(self.tables)), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table:
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._table and self._table[-1]:
            self._table[-1][-1] += data.strip()


def printed_commands(text: str) -> list[str]:
    found = re.search('<pre id="commands">(.*?)</pre>', text, re.DOTALL)
    return html.unescape(found[1]).splitlines() if found else []


# --- what is in it -------------------------------------------------------------------------------


def test_it_needs_no_other_file_and_no_network(text: str) -> None:
    links = Reader(text).links
    assert len(links) == 3
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_it_has_every_run_with_its_state_and_its_cause(sweep: Path, text: str) -> None:
    read = Reader(text)
    head, *rows = read.tables["runs"]
    states = {row[0]: row[head.index("state")] for row in rows}
    assert states == {run.name: str(run.state) for run in load(sweep)}
    assert len(states) == 15
    failed = next(row for row in rows if row[0].endswith("seed=8"))
    assert failed[head.index("cause")] == CAUSE
    assert f"1 failed: {CAUSE}" in read.text
    assert "seed=8/run.log" in read.text
    assert "1 foreign: not a run" in read.text
    assert "1 folder holds no run whose config is known." in read.text
    assert "13 of 14 runs counted (1 failed)." in read.text


def test_what_a_run_says_cannot_become_part_of_the_page(text: str) -> None:
    assert CAUSE not in text
    assert CAUSE in html.unescape(text)
    assert Reader(text).tags.count("script") == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_its_scores_are_those_of_the_cells(protocol: str, sweep: Path, text: str) -> None:
    shown = text if protocol == "last" else report(sweep, protocol=protocol)
    head, *rows = Reader(shown).tables["scores"]
    found = score(load(sweep), PROTOCOLS[protocol])
    name = PROTOCOLS[protocol].name
    assert len(rows) == len(found) == 5
    for row, cell in zip(rows, found, strict=True):
        said = dict(zip(head, row, strict=True))
        assert (said["length"], said["series"]) == (str(cell.length), cell.label)
        assert said[f"{name} [95 %]"] == str(cell.estimate)
        assert (said["n"], said["requested"]) == (str(len(cell.counted)), str(len(cell.members)))


def test_it_says_what_differs_from_the_defaults(text: str) -> None:
    read = Reader(text)
    rows = [row for table in read.tables.values() for row in table]
    assert ["env.length", "5, 10"] in rows
    assert ["algo.lr", "0.0003", "0.01"] in rows


def test_the_defaults_are_those_of_the_same_task_length_and_model(tmp_path: Path) -> None:
    choices = ("env=visual_match", "seq_model=gpt", "seed=5"), ("env.length=20", "budget=paper")
    for choice in choices:
        make_run(tmp_path, [0.1], *choice, "budget=paper")
    assert changed_keys(load(tmp_path / "outputs")) == []
    make_run(tmp_path, [0.1], "env.length=20", "algo.lr=0.01")
    assert changed_keys(load(tmp_path / "outputs")) == [
        ("algo.lr", "0.0003", "0.01"),
        ("budget.train_episodes", "4000", "600"),
    ]


def test_a_key_that_is_new_or_gone_is_said_and_an_unknown_model_left_out(tmp_path: Path) -> None:
    config = make_config()
    config["algo"]["width"] = 3
    del config["algo"]["tau"]
    run = Run(config, tmp_path)
    unknown = Run(config | {"seq_model": {"name": "of_mine"}}, tmp_path)
    nameless = Run({"seed": 1}, tmp_path)
    assert changed_keys([run, unknown, nameless]) == [
        ("algo.tau", "0.005", "absent"),
        ("algo.width", "absent", "3"),
    ]


def test_it_has_the_commands_in_order_and_says_how_many_runs_have_none(tmp_path: Path) -> None:
    for seed, (command, started) in enumerate([("b <&> 'c d'", 9), ("a", 7), ("a", 3), (None, 1)]):
        status = {"command": command, "started": started}
        make_run(tmp_path, [0.1], f"seed={seed}", status=status)
    text = report(tmp_path / "outputs")
    assert printed_commands(text) == ["a", "b <&> 'c d'"]
    assert "No command is recorded for 1 run;" in text


def test_it_says_what_it_ran_on_and_what_it_cost(text: str) -> None:
    read = Reader(text)
    rows = [row for table in read.tables.values() for row in table]
    assert ["torch", "2.13.0 (13 runs), 2.12.0 (1 run)"] in rows
    head, *costs = read.tables["costs"]
    total = dict(zip(head, costs[-1], strict=True))
    assert total["runs"] == "14"
    # 67.1 seconds each, as made; one of them on a GPU.
    assert total["hours"] == f"{14 * 67.1 / 3600:.2f}"
    assert total["GPU hours"] == f"{67.1 / 3600:.2f}"
    assert total["env steps/s"] == "100"


def test_a_sweep_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    make_run(tmp_path, [], status={"state": "running", "progress": 0.0})
    read = Reader(report(tmp_path / "outputs"))
    assert "No figure: no run has been evaluated yet." in read.text
    assert len(read.tables["scores"]) == 2


# --- the command ---------------------------------------------------------------------------------


def command(launch: Launch, *arguments: object) -> Process:
    process = launch(first=lambda: sys.exit(main(["report", *map(str, arguments)])))
    process.wait()
    return process


def test_the_command_writes_it_into_the_folder(
    launch: Launch, sweep: Path, text: str, originals: Path, tmp_path: Path
) -> None:
    process = command(launch, sweep)
    assert process.wait() == 0, process.output
    assert process.out.splitlines()[-1].endswith("outputs/made/report.html")
    path = sweep / "report.html"
    assert path.read_text() == text  # the same data give the same page
    path.unlink()
    process = command(launch, sweep, originals, "--output", tmp_path / "deep" / "both.html")
    assert process.wait() == 0, process.output
    both = Reader((tmp_path / "deep" / "both.html").read_text())
    assert "original program" in both.text and "python run.py" not in both.text
    assert len(both.tables["scores"]) == 1 + 5 + 5
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments, code, line",
    [
        (["nowhere"], 2, "error: nowhere: no such folder"),
        (["."], 2, "error: .: no run"),
        ([".", "--output", "page.pdf"], 2, "argument --output: must end with .html, got page.pdf"),
    ],
)
def test_what_cannot_be_reported_is_refused(
    arguments: list[str], code: int, line: str, launch: Launch, tmp_path: Path
) -> None:
    process = command(launch, *arguments)
    assert process.wait() == code
    assert line in process.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


# --- in a browser --------------------------------------------------------------------------------


def browse(tmp_path: Path, text: str, *options: str) -> str:
    """Open a page in a headless browser; return what it has become."""
    path = tmp_path / "page.html"
    path.write_text(text)
    quiet = ("gpu", "quic", "sync", "background-networking", "component-update", "extensions")
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--no-first-run",
            "--hide-scrollbars",
            *(f"--disable-{name}" for name in quiet),
            f"--user-data-dir={tmp_path / 'profile'}",
            *(options or ["--dump-dom"]),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(tmp_path: Path, text: str, script: str) -> dict:
    """Run a script in the page; return what it assigned to ``said``."""
    put = "document.body.dataset.said = JSON.stringify(said);"
    script = f"<script>{{ const said = {{}}; {script} {put} }}</script></body>"
    dom = browse(tmp_path, text.replace("</body>", script))
    return json.loads(html.unescape(re.search(r'data-said="([^"]*)"', dom)[1]))


@needs_browser
def test_headers_sort_and_figures_open_large(text: str, tmp_path: Path) -> None:
    said = asked(
        tmp_path,
        text,
        """
        const table = document.querySelector("#scores"), heads = [...table.tHead.rows[0].cells];
        const rows = () => [...table.tBodies[0].rows];
        const column = name => {
          const n = heads.findIndex(head => head.textContent.startsWith(name));
          return {head: heads[n], read: () => rows().map(row => row.cells[n].textContent)}; };
        const score = column("IQM"), series = column("series");
        score.head.firstElementChild.click(); said.down = score.read();
        said.sort = score.head.getAttribute("aria-sort");
        score.head.firstElementChild.click(); said.up = score.read();
        series.head.firstElementChild.click(); said.series = series.read();
        said.other = score.head.getAttribute("aria-sort");
        const costs = document.querySelector("#costs");
        for (const head of costs.tHead.rows[0].cells) head.firstElementChild.click();
        said.last = costs.tBodies[0].lastElementChild.cells[0].textContent;
        document.querySelector("figure button").click();
        const dialog = document.querySelector("dialog"), large = dialog.querySelector("img");
        said.open = dialog.open; said.same = large.src === document.querySelector("figure img").src;
        said.before = large.getBoundingClientRect().width;
        dialog.querySelector("[aria-label=larger]").click();
        said.after = large.getBoundingClientRect().width;
        dialog.querySelector("[aria-label=close]").click(); said.closed = !dialog.open;
        said.title = document.title;
        """,
    )
    values = [float(text.split(" ")[0]) for text in said["down"]]
    assert values == sorted(values, reverse=True) and len(set(values)) > 1
    assert said["up"] == said["down"][::-1]
    assert said["sort"] == "descending" and said["other"] is None
    assert said["series"] == sorted(said["series"])
    assert said["last"] == "all"  # the sum stays below
    assert said["open"] and said["same"] and said["closed"]
    assert said["after"] == pytest.approx(1.5 * said["before"], rel=0.01)
    assert said["title"] == "made: memrl report"


@needs_browser
def test_it_is_as_wide_as_the_screen(text: str, tmp_path: Path) -> None:
    """Tables scroll by themselves; the page never does so sideways."""
    widths = (360, 1200)
    frames = "".join(
        f'<iframe style="width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>'
        for width in widths
    )
    script = """
        for (const frame of document.querySelectorAll("iframe"))
          frame.addEventListener("load", () => { const page = frame.contentDocument.documentElement;
            const table = frame.contentDocument.querySelector("#scores").parentElement;
            const images = [...frame.contentDocument.querySelectorAll("figure img")];
            frame.dataset.said = JSON.stringify([page.scrollWidth, page.clientWidth,
              table.scrollWidth - table.clientWidth,
              ...images.map(i => i.naturalWidth && i.getBoundingClientRect().right)]); });
    """
    dom = browse(tmp_path, f"<body>{frames}<script>{script}</script></body>")
    for width, said in zip(widths, re.findall(r'data-said="([^"]*)"', dom), strict=True):
        page_width, screen, hidden, *right = json.loads(said)
        assert page_width == screen <= width
        assert hidden == 0 or width < 1200
        assert len(right) == 3 and all(0 < edge <= screen for edge in right)


@needs_browser
def test_it_can_be_printed_and_pictured(text: str, tmp_path: Path) -> None:
    picture, pages = tmp_path / "page.png", tmp_path / "page.pdf"
    browse(tmp_path, text, f"--screenshot={picture}", "--window-size=1200,3000")
    assert picture.read_bytes().startswith(b"\x89PNG")
    browse(tmp_path, text, f"--print-to-pdf={pages}")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pages.read_bytes())) <= 12
