"""Public datasets, fetched from a server of our own: the real ones are out of reach here."""

import http.server
import io
import json
import shutil
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from celltwin.data import importers, public
from celltwin.data.record import Record
from celltwin.errors import CelltwinError

# Raw files as the testers wrote them ------------------------------------------------------------------------


def discharge(n: int, step_s: float) -> dict[str, np.ndarray]:
    """A pulsed discharge with a little regeneration: time, V, I (positive = charge), degC, Ah."""
    time = np.arange(n) * step_s
    current = np.where((time // 20) % 3 == 0, -3.0, np.where((time // 20) % 3 == 1, 0.5, 0.0))
    current[:3] = 0.0
    charge = np.cumsum(current * np.diff(time, prepend=0.0)) / 3600
    return {
        "time": time,
        "voltage": 4.18 + 0.3 * charge + 0.03 * current,
        "current": current,
        "temperature": 25.0 - charge,
        "charge": charge,
    }


def digatron(n: int = 400, step_s: float = 0.1, start_s: float = 5000.25) -> str:
    """A Digatron export of the LG cell; its program clock does not begin at zero."""
    log = discharge(n, step_s)
    head = ["", "", "Measurement ID,551", "Battery Name,LG HG2", "Nominal Capacity, 3", "", ""]
    names = "Time Stamp,Step,Status,Prog Time,Step Time,Cycle,Cycle Level,Procedure,Voltage,Current,Temperature,"
    head += [names + "Capacity,WhAccu,Cnt,", ",,,,,,,,[V],[A],[C],[Ah],[Wh],[Cnt],"]

    def clock(second: float) -> str:
        return f"{int(second // 3600):02d}:{int(second // 60 % 60):02d}:{second % 60:06.3f}"

    rows = [
        f"10/26/2018 9:29:22 AM,22,DCH,{clock(start_s + t)},{clock(t)},0,0,LG,{v:.5f},{i:.5f},{temp:.5f},{q:.5f},0,1,"
        for t, v, i, temp, q in zip(*log.values(), strict=True)
    ]
    return "\r\n".join([*head, *rows, ""])


def panasonic(n: int = 400, soak_rows: int = 0) -> bytes:
    """A `meas` struct; some files begin with a rest logged every 60 s."""
    log = discharge(n, 0.1)
    soak = np.arange(soak_rows) * 60.0

    def after_soak(values: np.ndarray, at_rest: float) -> np.ndarray:
        return np.concatenate([np.full(soak_rows, at_rest), values])[:, None]

    time = np.concatenate([soak, log["time"] + 60.0 * soak_rows])[:, None]
    meas = {
        "Voltage": after_soak(log["voltage"], 4.18),
        "Current": after_soak(log["current"], 0.0),
        "Ah": after_soak(log["charge"], 0.0),
        "Battery_Temp_degC": after_soak(log["temperature"], 25.0),
        "Time": time,
        "Chamber_Temp_degC": np.full_like(time, 25.0),
    }
    file = io.BytesIO()
    scipy.io.savemat(file, {"meas": meas})
    return file.getvalue()


def bitrode() -> str:
    """A pulse test that begins with the charge: rest, charge to 4.2 V, rest, one discharge pulse, discharge."""
    steps = [("REST", 0.0, 60), ("CHRG", 30.0, 3600), ("REST", 0.0, 300), ("DCHG", -30.0, 30), ("DCHG", -10.0, 7200)]
    rows = [
        "Exclude,Time(s),Cycle,Loop,Loop,Loop,Step,StepTime(s),Current(A),Voltage(V),Power(W),Capacity(Ah),Energy(Wh),Mode,Data,"
    ]
    time, charge = 0, 0.0
    for number, (mode, current, seconds) in enumerate(steps, 1):
        in_step = 0.0
        for second in range(1, seconds + 1, 10):
            time, charge, in_step = time + 10, charge + current / 360, in_step + current / 360
            volt = 3.1 + charge / 30 + 0.002 * current
            rows.append(
                f"No,{time}.0,1,1,1,1,{number},{second}.0,{current:.2f},{volt:.4f},0.0,{in_step:.4f},0,{mode}, ,"
            )
    return "\n".join([*rows, ""])


def zipped(files: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return file.getvalue()


def lg_archive(**more: str | bytes) -> bytes:
    """As Mendeley hands it out: the authors' folder with drive cycles, charges, other tests and copies as .mat."""
    root = "LG 18650HG2 Li-ion Battery Data/LG_HG2_Original_Dataset_McMasterUniversity_Jan_2020"
    cycles = {f"{root}/25degC/551_{name}.csv": digatron() for name in ("Mixed1", "UDDS", "LA92", "HWFET")}
    others = {
        f"{root}/n10degC/602_Mixed4.csv": digatron(),  # the frozen logger
        f"{root}/n10degC/601_Mixed1.csv": digatron(),
        f"{root}/25degC/551_Charge1.csv": digatron(),
        f"{root}/25degC/549_HPPC.csv": digatron(),
        f"{root}/25degC/551_Cap_1C.csv": digatron(),
        f"{root}/25degC/552_Cap_1C.csv": digatron(300),
        f"{root}/25degC/10-29-18_06.08 551_UDDS_25degC_LGHG2.mat": b"a copy",
        f"{root}/readme.txt": "read me",
    }
    return zipped(cycles | others | more)


def panasonic_archive() -> bytes:
    """One archive in another, with folders of other names than the degrees."""
    files: dict[str, str | bytes] = {
        f"Panasonic 18650PF Data/25degC/Drive cycles/03-18-17_02.17 25degC_Cycle_{k}_Pan18650PF.mat": panasonic()
        for k in range(1, 5)
    }
    cold = "Panasonic 18650PF Data/-10degC/Drive Cycles/06-07-17_08.39 n10degC"
    files[f"{cold}_US06_Pan18650PF.mat"] = panasonic(soak_rows=100)
    files[f"{cold}_NN_Pan18650PF.mat"] = panasonic()
    files["Panasonic 18650PF Data/-10degC/5 pulse test/06-07-17_12.29 n10degC_5pulse_HPPC_Pan18650PF.mat"] = panasonic()
    trise = "Panasonic 18650PF Data/-20degC Trise/06-30-17_19.27 n20degC_trise_Cycle_1_Pan18650PF.mat"
    files[trise] = panasonic()
    return zipped({"Panasonic 18650PF Data.zip": zipped(files)})


# A server that can fail -------------------------------------------------------------------------------------


@dataclass
class Server:
    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    cut_after: int | None = None  # bytes of the body that are sent before the connection closes
    says_length: bool = True
    asked: int = 0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            body = state.files.get(self.path, b"")
            self.send_response(state.status if body else 404)
            if state.says_length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut_after])

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def lg(server: Server) -> Server:
    server.files["/lg_18650hg2.zip"] = lg_archive()
    return server


def fetch(server: Server, cache: Path, name: str = "lg_18650hg2") -> Path:
    return public.fetch(name, cache=cache, base_url=server.url, progress=False)


def left_in(cache: Path) -> set[str]:
    """Files in the cache, without the archives' contents."""
    return {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}


# Conversion -------------------------------------------------------------------------------------------------


def test_lg_is_converted_to_cycles_at_1_hz_and_native_tests(lg: Server, tmp_path: Path) -> None:
    folder = fetch(lg, tmp_path)

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert files == {
        "dataset.toml",
        *(f"drive_1hz/25degC/{name}.parquet" for name in ("Mixed1", "UDDS", "LA92")),
        "drive_1hz/n10degC/Mixed1.parquet",
        *(f"native/25degC/{name}.parquet" for name in ("HPPC", "Cap_1C", "Cap_1C_end")),
    }
    record = importers.load(folder / "drive_1hz" / "25degC" / "LA92.parquet")
    log = discharge(400, 0.1)
    assert record.ambient_degC == 25.0
    np.testing.assert_allclose(record.time, np.arange(40) + 0.5)
    np.testing.assert_allclose(record.current, log["current"].reshape(40, 10).mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(record.voltage, log["voltage"].reshape(40, 10).mean(axis=1), atol=1e-5)
    assert record.net_capacity is not None
    np.testing.assert_allclose(record.net_capacity, log["charge"][9::10], atol=1e-5)
    native = importers.load(folder / "native" / "25degC" / "HPPC.parquet")
    assert len(native) == 400


def test_panasonic_is_found_in_a_nested_archive_and_its_soak_is_cut(server: Server, tmp_path: Path) -> None:
    server.files["/panasonic_18650pf.zip"] = panasonic_archive()
    folder = fetch(server, tmp_path, "panasonic_18650pf")

    cycles = {path.relative_to(folder / "drive_1hz").as_posix() for path in folder.glob("drive_1hz/*/*.parquet")}
    assert cycles == {"n10degC/US06.parquet", *(f"25degC/Cycle{k}.parquet" for k in range(1, 5))}
    assert (folder / "native" / "n10degC" / "HPPC_06-07-17.parquet").is_file()
    cold = importers.load(folder / "drive_1hz" / "n10degC" / "US06.parquet")
    assert cold.ambient_degC == -10.0
    assert cold.time[0] == 0.5
    assert len(cold) == 40


def test_leaf_begins_at_the_full_charge(server: Server, tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"nissan-leaf-data/data/cell-low-current-hppc-{name}.csv": bitrode() for name in ("10c", "25c-2", "40c-1")
    }
    server.files["/nissan_leaf.zip"] = zipped({"batterysim/nissan-leaf-data-v1.0.zip": zipped(files)})
    folder = fetch(server, tmp_path, "nissan_leaf")

    record = importers.load(folder / "native" / "25degC" / "HPPC.parquet")
    assert sorted(path.parent.name for path in folder.rglob("*.parquet")) == ["10degC", "25degC", "40degC"]
    assert record.time[0] == 0.0
    assert record.current[0] == 0.0
    assert record.charge_ah.max() == 0.0
    assert record.charge_ah[-1] < -20.0


@pytest.mark.parametrize("name", public.NAMES)
def test_every_description_names_the_records_that_are_made(name: str) -> None:
    source = public._SOURCES[name]
    description = tomllib.loads(source.toml)
    assert description["records"]["files"].startswith(source.kind + "/")
    assert {"train", "validate", "test"} == set(description["split"])
    assert description["source"]["licence"] in {"CC-BY-4.0", "MIT"}


def test_a_file_that_does_not_import_is_left_out_and_listed(lg: Server, tmp_path: Path) -> None:
    lg.files["/lg_18650hg2.zip"] = lg_archive(**{"x/25degC/551_US06.csv": "no log at all"})
    folder = fetch(lg, tmp_path)
    assert (folder / "LEFT_OUT.txt").read_text().startswith("drive_1hz/25degC/US06: ")
    assert not (folder / "drive_1hz" / "25degC" / "US06.parquet").exists()
    assert (folder / "drive_1hz" / "25degC" / "LA92.parquet").exists()


# Cache, network and malice ----------------------------------------------------------------------------------


def test_second_use_is_offline(lg: Server, tmp_path: Path) -> None:
    folder = fetch(lg, tmp_path)
    assert lg.asked == 1
    assert public.fetch("lg_18650hg2", cache=tmp_path, base_url="http://127.0.0.1:9") == folder


def test_cache_follows_the_environment(lg: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLTWIN_CACHE", str(tmp_path))
    assert public.fetch("lg_18650hg2", base_url=lg.url, progress=False) == tmp_path / "lg_18650hg2"


def test_an_archive_put_there_by_hand_is_used(lg: Server, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "lg_18650hg2.zip").write_bytes(lg_archive())
    assert (fetch(lg, tmp_path) / "dataset.toml").is_file()
    assert lg.asked == 0


def test_progress_is_shown_on_stderr_only(lg: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    public.fetch("lg_18650hg2", cache=tmp_path, base_url=lg.url, progress=True)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "lg_18650hg2" in shown.err


def test_a_changed_archive_is_refused(lg: Server, tmp_path: Path) -> None:
    folder = fetch(lg, tmp_path)
    first = json.loads((tmp_path / "checksums.json").read_text())["lg_18650hg2"]
    shutil.rmtree(folder)
    (tmp_path / "downloads" / "lg_18650hg2.zip").unlink()
    lg.files["/lg_18650hg2.zip"] = lg_archive(extra="changed")

    with pytest.raises(CelltwinError, match="not the one that was used before") as raised:
        fetch(lg, tmp_path)
    assert first in str(raised.value.expected)
    assert str(raised.value.got).startswith("sha256:")
    assert raised.value.got != first
    assert "checksums.json" in str(raised.value.fix)
    assert left_in(tmp_path) == {"checksums.json"}


def test_an_archive_changed_on_disk_is_refused(lg: Server, tmp_path: Path) -> None:
    shutil.rmtree(fetch(lg, tmp_path))
    (tmp_path / "downloads" / "lg_18650hg2.zip").write_bytes(lg_archive(extra="changed"))
    with pytest.raises(CelltwinError, match="not the one that was used before"):
        fetch(lg, tmp_path)


@pytest.mark.parametrize("says_length", [True, False])
def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(
    lg: Server, tmp_path: Path, says_length: bool
) -> None:
    lg.cut_after, lg.says_length = 5000, says_length
    with pytest.raises(CelltwinError, match=r"the download of 'lg_18650hg2' (failed|is no zip archive)"):
        fetch(lg, tmp_path)
    assert left_in(tmp_path) == set()

    lg.cut_after = None
    assert (fetch(lg, tmp_path) / "dataset.toml").is_file()


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusing_server_is_reported_with_the_way_by_hand(lg: Server, tmp_path: Path, status: int) -> None:
    lg.status = status
    with pytest.raises(CelltwinError, match=f"got: {status}") as raised:
        fetch(lg, tmp_path)
    assert "https://data.mendeley.com/datasets/cp3473x7xv/3" in str(raised.value.fix)
    assert str(tmp_path / "downloads" / "lg_18650hg2.zip") in str(raised.value.fix)
    assert left_in(tmp_path) == set()


def test_no_server_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(CelltwinError, match="failed"):
        public.fetch("lg_18650hg2", cache=tmp_path, base_url="http://127.0.0.1:9", progress=False)


def test_a_web_page_instead_of_an_archive_is_refused(lg: Server, tmp_path: Path) -> None:
    lg.files["/lg_18650hg2.zip"] = b"<html>please log in</html>"
    with pytest.raises(CelltwinError, match="no zip archive"):
        fetch(lg, tmp_path)
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize(
    "member", ["../../25degC/551_LA92.csv", "/25degC/551_LA92.csv", "C:/25degC/551_LA92.csv", "a\\..\\..\\551_LA92.csv"]
)
def test_an_archive_that_writes_outside_is_refused(lg: Server, tmp_path: Path, member: str) -> None:
    cache = tmp_path / "cache"
    lg.files["/lg_18650hg2.zip"] = zipped({"x/25degC/551_UDDS.csv": digatron(), member: digatron()})
    with pytest.raises(CelltwinError, match="unsafe"):
        fetch(lg, cache)
    assert left_in(tmp_path) == {"cache/downloads/lg_18650hg2.zip"}


def test_a_damaged_archive_is_reported(lg: Server, tmp_path: Path) -> None:
    whole = bytearray(lg_archive())
    whole[200:2000] = bytes(1800)
    lg.files["/lg_18650hg2.zip"] = bytes(whole)
    with pytest.raises(CelltwinError, match="damaged"):
        fetch(lg, tmp_path)
    assert "checksums.json" not in left_in(tmp_path)


def test_an_archive_of_something_else_is_reported(lg: Server, tmp_path: Path) -> None:
    lg.files["/lg_18650hg2.zip"] = zipped({"readme.txt": "nothing here"})
    with pytest.raises(CelltwinError, match="holds none of its records"):
        fetch(lg, tmp_path)


def test_an_interrupted_conversion_leaves_nothing_half_made(
    lg: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(record: Record, path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Record, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(lg, tmp_path)
    assert left_in(tmp_path) == {"downloads/lg_18650hg2.zip"}
    assert (fetch(lg, tmp_path) / "dataset.toml").is_file()


def test_a_folder_in_the_way_is_reported(lg: Server, tmp_path: Path) -> None:
    (tmp_path / "lg_18650hg2").mkdir()
    (tmp_path / "lg_18650hg2" / "mine.txt").write_text("keep")
    with pytest.raises(CelltwinError, match="cannot be put in place"):
        fetch(lg, tmp_path)
    assert (tmp_path / "lg_18650hg2" / "mine.txt").read_text() == "keep"


def test_an_unknown_name_suggests_a_known_one(tmp_path: Path) -> None:
    with pytest.raises(CelltwinError, match="did you mean 'lg_18650hg2'"):
        public.fetch("lg_18650hg", cache=tmp_path)


# Resampling -------------------------------------------------------------------------------------------------


def test_resample_mean_matches_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    time = np.cumsum(random.uniform(0.05, 0.9, 200))
    time[120:] += 7.3  # a gap leaves bins out
    voltage = random.normal(3.7, 0.1, 200)
    voltage[10:14] = np.nan
    record = Record("x", time, voltage, random.normal(0, 1, 200), random.normal(25, 1, 200), np.arange(200.0))

    means = public.resample_mean(record, 2.0)
    for k, at in enumerate(means.time):
        inside = (time >= at - 1.0) & (time < at + 1.0)
        assert inside.any()
        assert means.current[k] == pytest.approx(record.current[inside].mean())
        assert means.voltage[k] == pytest.approx(np.nanmean(voltage[inside]))
        assert means.net_capacity is not None
        assert means.net_capacity[k] == np.flatnonzero(inside)[-1]
    assert len(means) == len(np.unique(time // 2.0))


def test_resample_mean_keeps_what_was_never_measured_nan() -> None:
    nan = np.full(50, np.nan)
    means = public.resample_mean(Record("x", np.arange(50) * 0.1, nan, np.zeros(50), nan))
    assert np.isnan(means.voltage).all()
    assert np.isnan(means.temperature).all()


def test_resample_mean_needs_two_periods() -> None:
    short = Record("x", np.array([0.0, 0.5]), np.full(2, 3.7), np.zeros(2), np.full(2, 25.0))
    with pytest.raises(CelltwinError, match="too short to resample"):
        public.resample_mean(short)


# Against measured data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["25degC/LA92", "n10degC/Mixed1"])
def test_lg_cycles_are_resampled_as_in_the_measured_data(shared_data: Path, place: str) -> None:
    made = public._cycle(importers.load(shared_data / "lg_18650hg2" / "native" / f"{place}.parquet"))
    known = importers.load(shared_data / "lg_18650hg2" / "drive_1hz" / f"{place}.parquet")
    np.testing.assert_allclose(made.time, known.time)
    np.testing.assert_allclose(made.voltage, known.voltage, atol=1e-6)
    np.testing.assert_allclose(made.current, known.current, atol=1e-6)


@pytest.mark.parametrize("ambient", ["25degC", "n10degC"])
def test_panasonic_files_convert_as_in_the_measured_data(shared_data: Path, ambient: str) -> None:
    (file,) = (shared_data / "raw" / "panasonic_18650pf_mat" / ambient).glob("*US06*.mat")
    assert public._place_panasonic(str(file)) == f"drive_1hz/{ambient}/US06"
    made = public._cycle_without_soak(importers.load(file))
    known = importers.load(shared_data / "panasonic_18650pf" / "drive_1hz" / ambient / "US06.parquet")
    assert abs(len(made) - len(known)) <= 1  # the bins may begin at another fraction of a second after the soak
    assert made.time[-1] - made.time[0] == known.time[-1] - known.time[0]
    assert made.charge_ah[-1] == pytest.approx(known.charge_ah[-1], abs=1e-3)
    if len(made) == len(known):
        np.testing.assert_allclose(made.voltage, known.voltage, atol=1e-6)


def test_leaf_pulse_tests_begin_full_and_end_empty(shared_data: Path) -> None:
    description = tomllib.loads(public._LEAF.toml)["cell"]
    files = sorted((shared_data / "nissan_leaf_ornl" / "cell").glob("*hppc*.csv"))
    places = [public._place_leaf(str(file)) for file in files]
    assert places == ["native/10degC/HPPC", "native/25degC/HPPC", "native/40degC/HPPC"]
    for file in files:
        record = public._from_full(importers.load(file))
        assert record.voltage[0] > 4.19
        assert record.charge_ah[-1] == pytest.approx(-description["reference_capacity_ah"], rel=0.015)
