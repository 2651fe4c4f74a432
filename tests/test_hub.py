"""What users fetch by name and commit or by address, from a stand-in of the hub: right files, each fault told or mended."""

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from hub import Hub, etag

from lib.errors import StudyError
from lib.tasks import download, sources

ROOT = Path(__file__).resolve().parents[1]
# Where the hub is and where its files go is read when the libraries are imported, so a process of its own plays the user.
PLAY = """
import hashlib, json, sys, time, traceback
from lib.models import classifiers, pretrained
from lib.tasks import sources
from lib.errors import StudyError

wait = time.sleep
time.sleep = lambda seconds: wait(min(seconds, 0.02))  # the clients' own pauses between attempts

def weights(encoder, revision=""):
    state = pretrained.load_classifier(encoder, 2, seed=0, revision=revision).base_model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()

def tokens(encoder, revision=""):
    return pretrained.load_tokenizer(encoder, revision)("a c")["input_ids"]

def rows(repo, revision, split="train"):
    columns = {"text_a": "premise", "text_b": "hypothesis", "label": "gold"}
    table = sources.Table("set/a.parquet", columns, {"yes": 0, "no": 1}, hub=sources.Hub(repo, "mine", split, revision))
    frame, record = sources.read(table)
    return [[text.replace(" and on", "") for text in frame["text_a"]], record["digest"]]

def classifier(place, revision=""):
    loaded = classifiers.load(place, revision)
    return [loaded.stored, list(loaded.notes), loaded.model.config.num_labels]

calls = {"classifier": classifier, "weights": weights, "tokens": tokens, "rows": rows, "identity": pretrained.identity, "depth": pretrained.depth}
for line in sys.stdin:
    name, *values = json.loads(line)
    try:
        answer = {"gives": calls[name](*values)}
    except StudyError as error:
        answer = {"error": str(error)}
    except Exception:
        answer = {"raised": traceback.format_exc()}
    print(json.dumps(answer), flush=True)
"""


class User:
    """A process that loads with the study's code from `hub` into `home`; what it may not say aloud goes to `home`/noise."""

    def __init__(self, hub: Hub, home: Path, **settings: str):
        self.hub, self.home = hub, home
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and name != "STUDY_DATA"}
        here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT)}
        home.mkdir(exist_ok=True)
        with (home / "noise").open("a") as noise:
            self.process = subprocess.Popen([sys.executable, "-c", PLAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=noise, text=True, env=kept | here | settings)
        self.limit = threading.Timer(180, self.process.kill)
        self.limit.start()

    def __call__(self, *call: str):
        """What the call gives; its StudyError is raised here."""
        del self.hub.asked[:]
        print(json.dumps(call), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline() or '{"raised": "the process is gone"}')
        assert "raised" not in answer, answer["raised"]
        if "error" in answer:
            assert "\n" not in answer["error"]
            raise StudyError(answer["error"])
        return answer["gives"]

    def end(self) -> None:
        self.limit.cancel()
        self.process.communicate()
        assert (self.home / "noise").read_text() == ""


@pytest.fixture(scope="module")
def hub():
    with Hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def mended(hub):
    yield
    hub.faults.clear()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hub") / "home"


@pytest.fixture(scope="module")
def offline(hub, home):
    offline = User(hub, home, HF_HUB_OFFLINE="1")
    yield offline
    offline.end()


@pytest.fixture(scope="module")
def user(hub, home, offline):
    """Both users import while one waits for the other."""
    user = User(hub, home)
    yield user
    user.end()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tiny_encoder):
    """The files of two tiny encoders that differ in their weights only."""
    folder = tmp_path_factory.mktemp("tiny")
    for seed in (0, 1):
        tiny_encoder(folder / str(seed), ["a b c d"], seed)
    return [{file.name: file.read_bytes() for file in (folder / str(seed)).iterdir()} for seed in (0, 1)]


def weights_in(files: dict[str, bytes]) -> str:
    state = safetensors.numpy.load(files["model.safetensors"])
    return hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()


def pairs(tag: str) -> dict[str, bytes]:
    """A data repository of two configurations in the layout of GLUE's."""
    def table(name: str, n: int) -> bytes:
        premises = [f"{name} {i}{' and on' * 200}" for i in range(n)]  # so that an altered byte is one of the text
        frame = pd.DataFrame({"premise": premises, "hypothesis": "h", "gold": ["yes", "no"] * (n // 2)})
        frame.to_parquet(memory := io.BytesIO(), compression=None)
        return memory.getvalue()

    def places(config: str) -> list[dict[str, str]]:
        return [{"split": split, "path": f"{config}/{split}-*"} for split in ("train", "test")]

    card = {"configs": [{"config_name": config, "data_files": places(config)} for config in ("other", "mine")]}
    files = {f"{config}/{split}-00000-of-00001.parquet": table(f"{tag} {config} {split}", n)
             for config in ("other", "mine") for split, n in (("train", 6), ("test", 4))}
    return {"README.md": f"---\n{json.dumps(card)}\n---\n".encode(), **files}


def got(hub: Hub) -> set[str]:
    """Names of the files whose bytes were asked for since the last call."""
    return {line.rsplit("/", 1)[1] for line in hub.asked if line.startswith("GET") and "/api/" not in line}


def assert_cache_is_whole(home: Path) -> None:
    """Every file in the client's cache hashes to its name, and no beginning of one is left."""
    blobs = {blob.name: blob.read_bytes() for blob in home.glob("hub/*/blobs/*")}
    assert blobs and all(name in (etag("", data), etag("x.bin", data)) for name, data in blobs.items())


# --- encoders

FOREIGN = {"pytorch_model.bin": b"a pickle", "tf_model.h5": b"tensors", "modeling_own.py": b"raise SystemExit"}


def test_a_model_comes_by_name_and_commit_and_is_kept(hub, user, tiny):
    first = hub.commit("model", "org/tiny", tiny[0] | FOREIGN)
    second = hub.commit("model", "org/tiny", tiny[1] | FOREIGN)
    assert user("depth", "org/tiny", first) == 2 and got(hub) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert user("weights", "org/tiny", first) == weights_in(tiny[0]) and got(hub) == {"model.safetensors"}
    assert user("tokens", "org/tiny", first) == [1, 4, 6, 2] and not hub.asked
    assert user("weights", "org/tiny", second) == user("weights", "org/tiny") == weights_in(tiny[1]) != weights_in(tiny[0])
    assert user("weights", "org/tiny", first) == weights_in(tiny[0]) and not hub.asked
    assert user("identity", "org/tiny", first) == f"hub org/tiny {first}" and not hub.asked
    assert user("identity", "org/tiny") == f"hub org/tiny {second}"


def test_pickles_and_code_are_never_fetched(hub, user, tiny):
    without = {name: data for name, data in tiny[0].items() if name != "model.safetensors"}
    pickled = hub.commit("model", "org/pickled", without | FOREIGN)
    for revision in (pickled, ""):
        with pytest.raises(StudyError, match="'org/pickled' cannot be loaded .*safetensors"):
            user("weights", "org/pickled", revision)
        assert not got(hub) & {*FOREIGN, "main"}
    code = {"AutoConfig": "modeling_own.C", "AutoModelForSequenceClassification": "modeling_own.M"}
    config = json.loads(tiny[0]["config.json"]) | {"auto_map": code}
    known = hub.commit("model", "org/known", tiny[0] | FOREIGN | {"config.json": json.dumps(config).encode()})
    assert user("weights", "org/known", known) == weights_in(tiny[0]) and got(hub) == {*tiny[0]}
    config["model_type"] = "own"
    unknown = hub.commit("model", "org/unknown", tiny[0] | FOREIGN | {"config.json": json.dumps(config).encode()})
    with pytest.raises(StudyError, match="'org/unknown' cannot be loaded .*custom code"):
        user("weights", "org/unknown", unknown)
    assert not got(hub) & {*FOREIGN}


@pytest.mark.parametrize("call", ["weights", "tokens"])
def test_a_model_that_is_not_to_be_had_is_told(hub, user, tiny, call):
    name = f"org/{call}"
    with pytest.raises(StudyError, match=f"'{name}' cannot be loaded .*the hub has no such repository.*fetch the folder"):
        user(call, name, "0" * 40)
    commit = hub.commit("model", name, tiny[0])
    with pytest.raises(StudyError, match=f"'{name}' cannot be loaded .*no such revision"):
        user(call, name, "0" * 40)
    for status in (401, 403):
        hub.fault(name, "", f"gated {status}")
        with pytest.raises(StudyError, match=f"'{name}' cannot be loaded .*gated: ask for access"):
            user(call, name, commit)
    hub.faults.clear()
    assert user(call, name, commit) == (weights_in(tiny[0]) if call == "weights" else [1, 4, 6, 2])


@pytest.mark.parametrize(("file", "kind"), [
    ("model.safetensors", "cut"), ("model.safetensors", "reset"), ("model.safetensors", "short"),
    ("model.safetensors", "busy"), ("config.json", "cut"), ("config.json", "busy"),
    ("tokenizer.json", "cut"), ("tokenizer.json", "short"),
    ("tokenizer_config.json", "cut"), ("tokenizer_config.json", "busy"),
    ("model.safetensors", "altered"), ("config.json", "altered"), ("tokenizer.json", "altered"),
])
def test_a_model_that_breaks_off_is_told_and_fetched_whole_the_next_time(hub, user, home, tiny, file, kind):
    name, call = f"org/{kind}-{file}", "tokens" if file.startswith("tokenizer") else "weights"
    commit = hub.commit("model", name, tiny[0])
    hub.fault(name, file, kind)
    with pytest.raises(StudyError, match=f"'{name}'" + (".*content hash" if kind == "altered" else " cannot be loaded")):
        user(call, name, commit)
    assert_cache_is_whole(home)
    hub.faults.clear()
    assert user(call, name, commit) == (weights_in(tiny[0]) if call == "weights" else [1, 4, 6, 2])


def test_a_tokenizer_without_a_vocabulary_is_refused(hub, user, tiny):
    commit = hub.commit("model", "org/mute", {name: tiny[0][name] for name in ("config.json", "model.safetensors")})
    with pytest.raises(StudyError, match="'org/mute': its tokenizer has no vocabulary"):
        user("tokens", "org/mute", commit)


def test_a_model_cut_once_is_resumed(hub, user, home, tiny):
    commit = hub.commit("model", "org/resumed", tiny[0])
    hub.fault("org/resumed", "model.safetensors", "cut", times=1)
    assert user("weights", "org/resumed", commit) == weights_in(tiny[0])
    assert sum(line.endswith("model.safetensors") for line in hub.asked if line.startswith("GET /stored")) == 2
    assert_cache_is_whole(home)


@pytest.mark.parametrize(("more", "says"), [
    ({"model-q4.gguf": b"GGUF"}, "model-q4.gguf was made for llama.cpp .*judge its predictions"),
    ({"onnx/model.onnx": b"onnx"}, "model.onnx was made for ONNX, .*judge its predictions"),
    ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"lora"}, "is an adapter .*merge_and_unload"),
    ({"pytorch_model.bin": b"a pickle"}, "keeps its weights in pytorch_model.bin, a pickle"),
    ({}, "holds no model.safetensors")])
def test_what_the_hub_has_in_place_of_a_classifier_is_told_and_not_fetched(hub, user, tiny, more, says):
    name = f"org/strange-{len(hub.repositories)}"
    commit = hub.commit("model", name, {file: data for file, data in tiny[0].items() if file != "model.safetensors"} | more)
    with pytest.raises(StudyError, match=f"{name}.*{says}"):
        user("classifier", name, commit)
    assert not got(hub) & {PurePosixPath(file).name for file in more}


def test_a_finished_classifier_comes_from_the_hub(hub, user, tiny):
    with pytest.raises(StudyError, match="org/bare is no finished classifier: its file lacks 'classifier.bias'"):
        user("classifier", "org/bare", hub.commit("model", "org/bare", tiny[0]))
    held = safetensors.numpy.load(tiny[0]["model.safetensors"])
    head = {"classifier.weight": np.ones((2, 16), np.float32), "classifier.bias": np.zeros(2, np.float32)}
    whole = {f"module.{name}": value for name, value in ({f"bert.{key}": value for key, value in held.items()} | head).items()}
    files = tiny[0] | {"model.safetensors": safetensors.numpy.save(whole, metadata={"format": "pt"})}
    stored, notes, classes = user("classifier", "org/done", hub.commit("model", "org/done", files))
    assert (stored, classes, len(notes)) == ("F32", 2, 1) and "data-parallel" in notes[0]


# --- data sets

def test_rows_come_by_configuration_split_and_commit_and_are_kept(hub, user):
    first, second = hub.commit("dataset", "org/pairs", pairs("old")), hub.commit("dataset", "org/pairs", pairs("new"))
    assert user("rows", "org/pairs", first) == [[f"old mine train {i}" for i in range(6)], f"revision:{first}"]
    assert user("rows", "org/pairs", first, "test")[0] == [f"old mine test {i}" for i in range(4)] and not got(hub)
    assert user("rows", "org/pairs", second)[0][0] == "new mine train 0"
    assert user("rows", "org/pairs", first)[0][0] == "old mine train 0" and not got(hub)


def test_without_an_answer_the_rows_of_another_commit_are_not_taken(hub, user):
    first, second = hub.commit("dataset", "org/down", pairs("old")), hub.commit("dataset", "org/down", pairs("new"))
    user("rows", "org/down", first)
    hub.fault("org/down", "", "busy")
    assert user("rows", "org/down", first)[0][0] == "old mine train 0"
    with pytest.raises(StudyError, match=f"STUDY_DATA.*set/a.parquet.*org/down .* at {second}.*download failed"):
        user("rows", "org/down", second)


def test_rows_that_are_not_to_be_had_are_told(hub, user):
    with pytest.raises(StudyError, match="STUDY_DATA.*set/a.parquet.*'org/rows' doesn't exist"):
        user("rows", "org/rows", "0" * 40)
    commit = hub.commit("dataset", "org/rows", pairs("x"))
    with pytest.raises(StudyError, match="Revision '0000.*' doesn't exist for dataset 'org/rows'"):
        user("rows", "org/rows", "0" * 40)
    for status, mend in ((401, "must be authenticated"), (403, "ask for access")):
        hub.fault("org/rows", "", f"gated {status}")
        with pytest.raises(StudyError, match=f"'org/rows' is a gated dataset.*{mend}"):
            user("rows", "org/rows", commit)
    hub.faults.clear()
    assert user("rows", "org/rows", commit)[0][0] == "x mine train 0"


TRAIN = "mine/train-00000-of-00001.parquet"


@pytest.mark.parametrize(("path", "kind", "told"), [
    (TRAIN, "cut", "peer closed connection"), (TRAIN, "reset", "reset by peer"), (TRAIN, "short", "should be of size"),
    (TRAIN, "busy", "503"), (TRAIN, "altered", f"{TRAIN} is not what its content hash says; it was deleted, run again"),
    (TRAIN.replace("train", "test"), "altered", "mine/test.* is not what its content hash says"),
    ("README.md", "altered", "README.md is not what its content hash says"),
])
def test_rows_that_come_damaged_are_told_and_fetched_whole_the_next_time(hub, user, home, path, kind, told):
    name = f"org/{kind}-{Path(path).stem}"
    commit = hub.commit("dataset", name, pairs(kind))
    hub.fault(name, path, kind)
    with pytest.raises(StudyError, match=f"{name} .*{told}"):
        user("rows", name, commit)
    assert_cache_is_whole(home)
    hub.faults.clear()
    assert user("rows", name, commit) == [[f"{kind} mine train {i}" for i in range(6)], f"revision:{commit}"]


def test_rows_cut_once_are_resumed(hub, user, home):
    commit = hub.commit("dataset", "org/resumed", pairs("x"))
    hub.fault("org/resumed", TRAIN, "cut", times=1)
    assert user("rows", "org/resumed", commit)[0] == [f"x mine train {i}" for i in range(6)]
    assert_cache_is_whole(home)


# --- offline

def test_offline_everything_comes_from_the_cache_at_its_commit(hub, user, offline, tiny):
    model, other = (hub.commit("model", "org/kept", files) for files in tiny)
    old, new = hub.commit("dataset", "org/kept", pairs("old")), hub.commit("dataset", "org/kept", pairs("new"))
    for call in (("weights", "org/kept", model), ("tokens", "org/kept", model), ("rows", "org/kept", old)):
        user(*call)
    assert offline("weights", "org/kept", model) == weights_in(tiny[0])
    assert offline("tokens", "org/kept", model) == [1, 4, 6, 2] and offline("depth", "org/kept", model) == 2
    assert offline("rows", "org/kept", old)[0][0] == "old mine train 0" and not hub.asked
    with pytest.raises(StudyError, match="'org/kept' cannot be loaded .*an appropriate cached snapshot"):
        offline("weights", "org/kept", other)
    with pytest.raises(StudyError, match=f"go online to fetch org/kept .* at {new}"):
        offline("rows", "org/kept", new)


# --- files by address

BODY = b"premise,hypothesis,gold\n" + b"a,b,yes\n" * 4000
BODY_DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture
def cache(hub, tmp_path, monkeypatch):
    """Where files fetched by address end up; pauses are short."""
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02, 0.04))
    monkeypatch.setattr(download, "SILENCE", 0.5)
    monkeypatch.setattr(sources.datasets.config, "HF_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("STUDY_DATA", raising=False)
    hub.files.clear()
    del hub.asked[:]
    return tmp_path / "study" / "set"


@pytest.mark.parametrize(("kind", "attempts"), [
    ("cut", 2), ("reset", 2), ("busy", 2), ("stalled", 2), ("slow", 1), ("unsized", 1), ("moved", 2),
])
def test_a_fault_that_passes_costs_at_most_an_attempt(hub, cache, kind, attempts):
    hub.files["a.csv"] = BODY
    hub.fault("files", "a.csv", kind, times=1)
    assert download.fetch(f"{hub.url}/files/a.csv", cache).read_bytes() == BODY
    assert len(hub.asked) == attempts


@pytest.mark.parametrize(("kind", "digest", "told", "attempts"), [
    ("cut", "", "of 32024 bytes arrived", 4), ("reset", "", "reset by peer", 4), ("busy", "", "503", 4),
    ("stalled", "", "timed out", 4), ("page", "", "a web page came", 1), ("gone", "", "404", 1),
    ("altered", BODY_DIGEST, "expected sha256:.* found sha256:.* not kept", 1),
    ("short", BODY_DIGEST, "expected sha256:.* found sha256:.* not kept", 1),
])
def test_a_fault_that_stays_is_told_and_leaves_nothing(hub, cache, kind, digest, told, attempts):
    hub.files |= {} if kind == "gone" else {"a.csv": BODY}
    hub.fault("files", "a.csv", kind)
    columns = {"text_a": "premise", "text_b": "hypothesis", "label": "gold"}
    table = sources.Table("set/a.csv", columns, {"yes": 0}, url=f"{hub.url}/files/a.csv", url_digest=digest)
    with pytest.raises(StudyError, match=f"{table.url}.*{told}") as error:
        sources.read(table)
    assert "\n" not in str(error.value) and len(hub.asked) == attempts and list(cache.iterdir()) == []
    hub.faults.clear()
    hub.files["a.csv"] = BODY
    assert len(sources.read(table)[0]) == 4000
