"""Reports on runs: what a folder holds is in them, one file with everything inside, whatever is missing or damaged."""

import json
import re
from types import MappingProxyType

import pytest
from PIL import Image

from common.cli import exit_code
from common.errors import UserError
from common.written import check_replaceable
from configs.changes import changed, differing
from configs.load import dump_config
from configs.schema import TrainConfig
from tools import compare_runs, run_report
from training.advice import advise
from training.comparison import cautions, differing_keys, over_seeds, unique_names
from training.report import run_page, write_report
from training.runs import read_run

FOLDERS = {"backlit_images_path": "a", "welllit_images_path": "b"}


def check(iteration, psnr, brightness=0.4, **more):
    known = {"phase": "rave", "val_psnr_input": 12.0, "val_ssim_input": 0.5, "seconds": float(iteration)}
    return {"iteration": iteration, "val_psnr": psnr, "val_ssim": 0.6, "val_brightness": brightness, **known, **more}


def step(iteration, projection=0.2, **more):
    known = {"phase": "rave", "loss": 2.0, "residual": 1.0, "mean_illumination": 0.6, "seconds": float(iteration)}
    return {"iteration": iteration, "projection": projection, "set_point": 0.3, "backlit_projection": -0.1} | {
        **known,
        **more,
    }


LOG = [
    check(0, 12.0, phase="reconstruction"),
    {"iteration": 10, "phase": "reconstruction", "loss": 0.5, "identity": 0.5, "seconds": 4.0},
    *(step(n) for n in range(20, 110, 10)),
    *(check(n, 14 + n / 100) for n in (50, 100)),
]


@pytest.fixture
def run(tmp_path):
    """Makes a run folder: of a log, and of what its config changes."""

    def make(log=LOG, name="tiny", exp=MappingProxyType({}), **sections):
        folder = tmp_path / name
        (folder / "previews").mkdir(parents=True)
        config = TrainConfig.model_validate({"exp": {"exp_name": folder.name, **exp}, "data": FOLDERS, **sections})
        (folder / "config.yaml").write_text(dump_config(config))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        record = {"command": "train_rave.py --cfg <i>x</i>", "commit": "abc", "python": "3", "versions": {"torch": "2"}}
        (folder / "provenance.json").write_text(json.dumps(record | {"hardware": {"processor": "P & Q", "cores": 2}}))
        (folder / "photos.json").write_text(json.dumps({"backlit": {"1": "a"}, "welllit": {"1": "b", "2": "c"}}))
        (folder / "summary.json").write_text(json.dumps({"method": "rave", "iterations": 100, "seconds": 100.0}))
        for number in (0, 50):
            Image.new("RGB", (60, 40), "grey").save(folder / "previews" / f"iteration_{number:06}.png")
        return folder

    return make


def sources(html):
    return re.findall(r"""(?:src|href)=["']([^"']*)""", html)


def test_a_page_opens_anywhere_and_shows_what_the_folder_holds(run):
    folder = run(unet_model={"lr": 3e-4})
    write_report(folder)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert len(sources(html)) == 4 + 2  # panels and previews
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", source) for source in sources(html))
    assert not re.search(r"https?://|<script src|@import|url\(", html)
    assert "<i>x" not in html and "&lt;i&gt;x" in html and "P &amp; Q, 2 cores" in html
    for text in ("15.00 dB", "3.00 dB above the untouched input", "Time per phase", "torch 2", "lr: 0.0003", 'max="1"'):
        assert text in html, text
    times = {row["name"]: (row["iterations"], row["seconds"]) for row in read_run(folder).times}
    assert times == {
        "set-up: embeddings and guidance": (0, 0.0),
        "reconstruction": (10, 4.0),
        "rave": (90, 96.0),
    }
    before = html
    write_report(folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == before  # of the same folder, the same page


def test_of_a_half_broken_folder_the_rest_is_reported_with_one_note(run, capsys):
    folder = run()
    with (folder / "metrics.jsonl").open("ab") as log:
        log.write(b'{"iteration": "x"}\n\xff\n{"iteration": 110, "loss": NaN, "val_psnr": "high"}\n')
    (folder / "config.yaml").write_text("exp: [")
    (folder / "provenance.json").unlink()
    (folder / "photos.json").write_text("[" * 9000)
    (folder / "summary.json").write_text('{"best": 3, "best_val": {"val_psnr": "x"}, "best_val_iteration": 5}')
    (folder / "previews" / "iteration_000070.png").write_text("no picture")
    assert exit_code(run_report.main, [str(folder)]) == 0
    (told,) = capsys.readouterr().err.splitlines()
    lacking = "config.yaml (damaged), provenance.json, photos.json (damaged), metrics.jsonl (2 damaged lines)"
    assert told == f"note: {folder}: the report is without {lacking}"
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "Curves" in html and "Previews over time" in html and lacking in html


@pytest.mark.parametrize("left", ["config.yaml", "metrics.jsonl"])
def test_of_one_file_alone_there_is_a_report(run, left):
    folder = run()
    for file in folder.iterdir():
        if file.is_file() and file.name != left:
            file.unlink()
    write_report(folder)
    assert "unfinished" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("tool", [run_report, compare_runs])
def test_mistakes_are_one_line(tool, run, tmp_path, capsys):
    folder = str(run())
    (tmp_path / "photos").mkdir()
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    cases = [[str(path), folder] for path in (tmp_path / "nowhere", tmp_path / "photos", __file__)]
    cases += [[folder, "--out", str(tmp_path / "mine.html")]] if tool is run_report else [[folder], [folder, folder]]
    for arguments in cases:
        assert exit_code(tool.main, arguments) == 2, arguments
        (told,) = capsys.readouterr().err.splitlines()
        assert told.startswith("error: "), told
    assert (tmp_path / "mine.html").read_text() == "<!doctype html><p>mine"


def test_runs_side_by_side(run, tmp_path, capsys):
    one = run(name="one", unet_model={"lr": 1e-4})
    two = run([*LOG[:-1], check(100, 16.5)], name="$two", unet_model={"lr": 2e-4})
    page = tmp_path / "page.html"
    assert compare_runs.main([str(one), str(two), "--report", str(page)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"best by validation: PSNR / dB +15\.00 +16\.50", printed)
    assert re.search(r"unet_model\.lr +0\.0001 +0\.0002", printed)
    assert "exp_name" not in printed and "batch_size" not in printed  # they are alike, or say where a run is
    html = page.read_text(encoding="utf-8")
    assert "unet_model.lr" in html and "16.50" in html and "$two" in html
    assert all(source.startswith("data:image/") for source in sources(html)) and len(sources(html)) == 5 + 2
    assert compare_runs.main([str(one), str(two), "--report", str(page)]) == 0  # its own page is replaced


def test_the_report_on_the_direction_is_summed_up_and_linked(run, tmp_path):
    folder = run()
    beside = folder.with_name("tiny_direction")
    beside.mkdir()
    part = {"n": 5, "auc": 0.98765, "content_words": ["cat", "<b>"]}
    for content, there in (({"n": 5, "light_share": 0.62, "shifts": [part]}, True), ({"n": 5}, False), ([], False)):
        (beside / "report.json").write_text(json.dumps(content))
        html = run_page(read_run(folder), tmp_path)
        assert ('href="tiny_direction/report.html"' in html) == there
        assert ("0.9877" in html and "62 %" in html and "cat, &lt;b&gt;" in html) == there
        assert ("interpret-residual" in html) != there


def titles(folder):
    return [advice.title for advice in advise(read_run(folder))]


def test_patterns_that_are_known(run):
    falling = [*(step(n) for n in range(5, 105, 5)), *(check(n, p) for n, p in ((20, 15.0), (60, 14.8), (100, 14.0)))]
    assert titles(run(falling, name="drift")) == ["drift"]
    settings = advise(read_run(run(falling, name="drift 2", loss={"identity_guided": 0.2})))[0].settings
    assert settings == ("train.num_iters=20", "loss.identity_guided=0.4")
    white = [*falling[:-1], check(100, 14.0, brightness=0.6)]
    assert titles(run(white, name="white")) == ["overfitting to white"]
    far = [step(n, projection=0.0) for n in range(5, 105, 5)]
    assert titles(run(far, name="far")) == ["set point out of reach"]
    on_the_way = [step(n, projection=-0.1 + 0.002 * n) for n in range(5, 105, 5)]
    assert titles(run(on_the_way, name="on the way")) == ["the set point is not met yet"]
    assert titles(run([step(5, set_point=-0.2)], name="away")) == ["the direction points away from light"]
    blind = [{"iteration": 10, "phase": "initialisation", "guidance_accuracy": 0.5, "s_backlit": 0.5}]
    blind = run(blind, name="blind", exp={"mode": "clip_lit"})
    assert titles(blind) == ["the guidance does not tell the folders apart"]
    assert titles(run([check(0, 12.0), check(50, 11.0)], name="worse")) == ["no snapshot beats the untouched input"]
    rising = [check(n, 12 + n / 20) for n in range(0, 60, 10)]
    assert titles(run(rising, name="rising")) == ["validation was still rising"]
    good = [*(step(n) for n in range(5, 105, 5)), *(check(n, p) for n, p in ((50, 15.0), (100, 15.1)))]
    assert titles(run(good, name="good")) == []


def test_a_training_that_changes_nothing_is_told(run):
    same = [step(n, mean_illumination=0.985) for n in range(5, 105, 5)]
    assert titles(run([*same, check(100, 15.0)], name="same")) == ["results are the photos themselves"]
    begins_there = [step(n, mean_illumination=1 - n / 200) for n in range(5, 105, 5)]
    assert titles(run([*begins_there, check(100, 15.0)], name="left")) == []


def test_a_run_of_a_few_iterations_is_too_short_to_judge(run):
    short = [*LOG[:2], step(13), check(13, 11.0, brightness=0.9)]  # 3 after the start: worse than the input, and white
    [advice] = advise(read_run(run(short, name="short")))
    assert (advice.title, advice.settings) == ("too short to judge", ()) and "for 3 iterations" in advice.why
    assert titles(run([*LOG[:2], step(13, set_point=-0.2)], name="away")) == ["the direction points away from light"]
    assert titles(run(LOG[:1], name="not begun")) == []


def test_advice_where_a_training_ends_once_results_settle(run):
    settles = {"settle_at": 0.55, "settle_iters": 30}
    near = [step(n, projection=0.14) for n in range(5, 105, 5)]  # 60 % of the way
    assert titles(run(near, name="near")) == ["set point out of reach"]
    assert titles(run(near, name="near enough", unet_model=settles)) == []
    on_the_way = [step(n, projection=-0.1 + 0.002 * n) for n in range(5, 105, 5)]
    [advice] = advise(read_run(run(on_the_way, name="on the way", unet_model=settles, train={"num_iters": 200})))
    assert advice.settings == ("unet_model.settle_iters=45", "train.num_iters=300")


def test_a_collapse_is_told_with_its_reason(run):
    folder = run(unet_model={"lr": 4e-4})
    (folder / "summary.json").unlink()
    outcome = {"exit": "diverged", "reason": "rave: results turned white 6 times", "collapses": 5}
    (folder / "outcome.json").write_text(json.dumps(outcome))
    first = advise(read_run(folder))[0]
    assert (first.title, first.why) == ("collapse: results turned white", f"{outcome['reason']}.")
    assert first.settings[0] == "unet_model.lr=0.0002"
    assert read_run(folder).result()["exit"] == "diverged"


def test_config_changes():
    tree = TrainConfig(data=FOLDERS, unet_model={"lr": 1e-3}, clip={"guidance": {"model": "RN50"}}).model_dump()
    assert changed(tree | {"old": {"key": 1}}, TrainConfig) == {
        "data": FOLDERS,
        "unet_model": {"lr": 1e-3},
        "clip": {"guidance": {"model": "RN50"}},
        "old": {"key": 1},
    }
    assert differing([{"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 3, "d": 4}]) == {"c": [2, 3], "d": ["–", 4]}


def test_keys_are_compared_that_have_an_effect(run):
    """A run by RAVE does not look at what CLIP-LIT learns."""
    settings = ({"guidance_model": {"lr": 1e-6}}, {"guidance_model": {"lr": 1e-5}, "unet_model": {"lr": 1e-3}})
    runs = [read_run(run(name=f"run{number}", **its)) for number, its in enumerate(settings)]
    assert differing_keys(runs) == {"unet_model.lr": [2e-5, 1e-3]}
    runs[0].config["exp"]["mode"] = "clip_lit"
    keys = differing_keys(runs)
    assert keys["exp.mode"] == ["clip_lit", "rave"] and keys["guidance_model.lr"] == [1e-6, "–"]
    assert "guidance_model.batch_size" not in keys and "loss.residual" not in keys  # left at their defaults


def test_seeds_of_one_config_have_a_mean_and_a_deviation(run, capsys):
    logs = [[*LOG, check(150, psnr)] for psnr in (16.0, 17.0, 18.0)]
    folders = [run(log, name=f"seed{number}", exp={"seed": number}) for number, log in enumerate(logs)]
    folders.append(run(name="other", unet_model={"lr": 1e-3}))
    runs = [read_run(folder) for folder in folders]
    [(members, scores)] = over_seeds(runs)
    assert members == [0, 1, 2]
    assert dict(scores)["best by validation: PSNR / dB"] == "17.00 ± 1.00"
    assert over_seeds([runs[0], runs[0], runs[3]]) == []  # the same run twice is no second seed
    assert over_seeds([runs[1], runs[0], runs[0]])[0][0] == [0, 1]
    (folders[2] / "outcome.json").write_text('{"exit": "stopped"}')
    (folders[2] / "summary.json").unlink()
    assert over_seeds([read_run(folder) for folder in folders])[0][0] == [0, 1]  # a part of a run does not count
    compare_runs.main([str(folder) for folder in folders])
    out, err = capsys.readouterr()
    assert "over 2 seeds: seed0, seed1" in out and "do not compare" not in err


def test_scores_of_other_validation_photos_are_not_compared(run, capsys):
    folders = [run(name="one"), run(name="two", data={**FOLDERS, "val_size": 96})]
    for folder in folders:
        (folder / "photos.json").write_text('{"val_backlit": {"a": "1"}, "val_gt": {"a": "2"}}')
    assert cautions([read_run(folder) for folder in folders])
    compare_runs.main([str(folder) for folder in folders])
    assert "note: the runs validate on different photos or sizes" in capsys.readouterr().err
    assert cautions([read_run(folders[0])] * 2) == []
    (folders[1] / "photos.json").unlink()
    assert cautions([read_run(folder) for folder in folders]) == []  # nobody knows


def test_names_are_as_long_as_they_need_to_be(run):
    folders = [run(name="x/rave"), run(name="y/rave")]
    assert unique_names([read_run(folder) for folder in folders]) == ["x/rave", "y/rave"]
    assert unique_names([read_run(folders[0])]) == ["rave"]


def test_only_files_of_ours_are_replaced(tmp_path):
    file = tmp_path / "figures"
    check_replaceable(file, "--report")
    for content, heading, ours in (
        ("", "", True),
        ('{"command": "x", "commit": null, "versions": {}, "mean": 1}', "", True),
        ('{"mean": 1}', "", False),
        ("{", "", False),
        ("name,rgb_psnr\n", "name,rgb_", True),
        ("name,age\n", "name,rgb_", False),
        ("text", "", False),
    ):
        file.write_text(content)
        if ours:
            check_replaceable(file, "--report", heading=heading)
        else:
            with pytest.raises(UserError, match="--report: expected a new name or a file written here before"):
                check_replaceable(file, "--report", heading=heading)
            check_replaceable(file, "--report", heading=heading, overwrite=True)
    with pytest.raises(UserError, match="expected a file, found a folder"):
        check_replaceable(tmp_path, "--report", overwrite=True)
