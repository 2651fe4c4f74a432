"""Every task of the study, declared once: labels, OOD sets, files, what its data are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lib.errors import StudyError, nearest
from lib.files import ROOT
from lib.tasks import microworld
from lib.tasks.sources import Hub, Table
from lib.tasks.task import Ood, Shortcut, Task

GLUE, GLUE_REVISION = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
PAWS, PAWS_REVISION = "google-research-datasets/paws", "161ece9501cf0a11f3e48bd356eaa82de46d6a09"
GITHUB = "https://raw.githubusercontent.com"
HANS_URL = f"{GITHUB}/tommccoy1/hans/7299f6f657089ce06a0f98e7e81f8d0f5b7741ce/heuristics_evaluation_set.txt"
CAD_URL = f"{GITHUB}/acmi-lab/counterfactually-augmented-data/6f232a1d2a11462a30ce08fb4825b734ab30828e/NLI/"
MONLI_URL = f"{GITHUB}/atticusg/MoNLI/5bf388ad669a28500c1d46dba3b7d665d62b0536/"
ANLI_URL = f"{GITHUB}/facebookresearch/anli/b5ce27af54a53bd495af7260fdc485000eed15f8/anlizinganli/anli_annot_v0.2/"
SYM_URL = f"{GITHUB}/TalSchuster/FeverSymmetric/fa25d17e73ea0694edc78133ec654b9f32f6db73/"
MNLI_COLUMNS = {"text_a": "premise", "text_b": "hypothesis", "label": "label", "group": "premise"}
HANS_COLUMNS = {"text_a": "sentence1", "text_b": "sentence2", "label": "gold_label", "heuristic": "heuristic",
                "subcase": "subcase", "group": "template"}
CAD_COLUMNS = {"text_a": "sentence1", "text_b": "sentence2", "label": "gold_label"}
ANLI_COLUMNS = {"text_a": "context", "text_b": "statement", "label": "gold_label", "group": "context"}
FEVER_COLUMNS = {"text_a": "evidence", "text_b": "claim", "label": "gold_label", "group": "claim"}
QQP_COLUMNS = {"text_a": "question1", "text_b": "question2", "label": "label"}
PAWS_COLUMNS = {"text_a": "sentence1", "text_b": "sentence2", "label": "label"}
MNLI_IDS, FEVER_IDS, QQP_IDS = {"0": 0, "1": 1, "2": 2}, {"SUPPORTS": 0, "REFUTES": 1}, {"0": 0, "1": 1}
NLI = ("entailment", "neutral", "contradiction")


def _micro(name: str, text_a: str, text_b: str, shortcut: Shortcut) -> Task:
    labels, caveats = microworld.TASKS[name], (
        "English from templates: `ood` is a subpopulation shift with known counts; HANS and PAWS are nearer to "
        "`unseen`. Dev and test spread their failing rows evenly over the subcases, whose counts in train rotate from "
        "seed to seed.")
    if name in microworld.PAIRED:
        caveats += " In train each failing row stands beside its twin, so that no word tells the label."
    if name == "micro_facts":
        caveats += (" In seven of its eight trained subcases the person who was not stands last: a model may learn "
                    "that order in place of reading; the unseen subcase `reversed` turns it round.")
    return Task(name, labels, text_a, text_b, {"ood": Ood(labels), "unseen": Ood(labels, role="unseen")}, shortcut,
                "that of this project", "made by lib.tasks.microworld", caveats)


def _mnli(split: str, sha: str, copy: str) -> Table:
    return Table(f"glue/mnli/{split}.parquet", MNLI_COLUMNS, MNLI_IDS, {f"sha256:{sha}": copy},
                 Hub(GLUE, "mnli", split, GLUE_REVISION), hash_group=True)


def _cad(kind: str, dev: str, test: str) -> Table:
    """Dev and test of one half of CAD-NLI: the originals, or their edits, four of one original in a row."""
    whole = [Table(f"cad_nli/{kind}/{split}.tsv", CAD_COLUMNS, {name: i for i, name in enumerate(NLI)},
                   {f"sha256:{sha}": f"all rows of {split}"}, url=f"{CAD_URL}{kind}/{split}.tsv",
                   url_digest=f"sha256:{sha}", quoted=True, group_rows=4 if kind == "revised_combined" else 0,
                   linked=kind == "original") for split, sha in (("dev", dev), ("test", test))]
    return replace(whole[0], also=(whole[1],))


def _monli(file: str, sha: str, **of: Any) -> Table:
    return Table(f"monli/{file}.jsonl", CAD_COLUMNS, {"entailment": 0, "neutral": 1}, {f"sha256:{sha}": "all rows"},
                 url=f"{MONLI_URL}{file}.jsonl", url_digest=f"sha256:{sha}", linked=True, case=file.split("_")[0], **of)


def _anli(round_: int, sha: str) -> Table:
    file = f"ANLI_analysis_r{round_}_dev.csv"
    return Table(f"anli/{file}", ANLI_COLUMNS, {"e": 0, "n": 1, "c": 2}, {f"sha256:{sha}": "all rows of dev"},
                 url=ANLI_URL + file, url_digest=f"sha256:{sha}", hash_group=True)


def _fever(file: str, url: str, sha: str, copy: str) -> Table:
    return Table(f"fever/{file}", FEVER_COLUMNS, FEVER_IDS, {f"sha256:{sha}": copy}, drop=("NOT ENOUGH INFO",),
                 url=f"https://www.dropbox.com/s/{url}?dl=1", hash_group=True)


def _symmetric(path: str, sha: str, **columns: str) -> Table:
    digest = f"sha256:{sha}"
    return Table(f"fever_symmetric/{path}", FEVER_COLUMNS | columns, FEVER_IDS, {digest: "official"},
                 url=SYM_URL + path, url_digest=digest, hash_group=True)


def _qqp(split: str, sha: str, copy: str) -> Table:
    return Table(f"glue/qqp/{split}.parquet", QQP_COLUMNS, QQP_IDS, {f"sha256:{sha}": copy},
                 Hub(GLUE, "qqp", split, GLUE_REVISION))


TASKS: dict[str, Task] = {task.name: task for task in (
    _micro("micro_nli", "premise", "hypothesis", "overlap"),
    _micro("micro_facts", "evidence", "claim", "b_only"),
    _micro("micro_paraphrase", "sentence1", "sentence2", "overlap"),
    Task(
        "mnli", NLI, "premise", "hypothesis",
        {"hans": Ood(("entailment", "non-entailment"), (0, 1, 1)),
         "cad_nli": Ood(NLI, role="panel"), "cad_nli_original": Ood(NLI, role="panel"),
         "monli": Ood(("entailment", "neutral"), (0, 1, 1), role="panel"),
         **{f"anli_r{n}": Ood(NLI, role="panel") for n in (1, 2, 3)}}, "b_only",
        "MultiNLI: OANC and others; HANS: MIT; CAD-NLI: Apache-2.0; MoNLI: none stated; ANLI: CC BY-NC 4.0",
        f"hub {GLUE} config mnli at {GLUE_REVISION}; {HANS_URL}; {CAD_URL}; {MONLI_URL}; {ANLI_URL}",
        "The mirror's train is a subset (32,880 of 392,702) and its HANS a fresh draw of the authors' generator "
        "(seed 1902), not the official 30,000 rows. test is validation_matched. Six OOD sets are a panel beside HANS "
        "and never enter the OOD score: CAD-NLI's edited pairs and, apart, their originals (dev and test; Kaushik et "
        "al. 2020), MoNLI, whose negated pairs are the authors' train and test (Geiger et al. 2020), and the dev sets "
        "of ANLI's three rounds (Nie et al. 2020, as annotated by Williams et al. 2022), whose contexts are long. "
        "CAD-NLI's originals are pairs of SNLI's dev and test sets: an encoder that saw AllNLI (SNLI and MultiNLI) "
        "knows their kind and may know the pairs.",
        {
            "train": _mnli("train", "9128b2bb922627769c18cc10d4ca53fca64b8c4e8aeef02655683275064a76f0",
                           "subset: 32,880 of 392,702 rows"),
            "test": _mnli("validation_matched", "a108ec0b4e764f4445248907693c7a7b7c2140bcbf1cec23806a5f9098a0866f",
                          "all 9,815 rows"),
            "hans": Table(
                "hans/heuristics_evaluation_set.txt", HANS_COLUMNS, {"entailment": 0, "non-entailment": 1},
                {"sha256:2c0c8286c0385e33d7079edd08e722abc658f21a54ab9a9583017d20c860d5ee":
                     "regenerated at seed 1902, not the official rows"},
                url=HANS_URL, url_digest="git:e042af242b19708d9c0256c713e873415c0b58a1"),
            "cad_nli": _cad("revised_combined", "ff7d6d40a26c5bca5b9d9030db14000a42fbf5bc8a0e6d0d86cc9b378198eb88",
                            "e5a3e55f7df0319decbb34dfa8ab4a4820be1b5ae4af9ee54aeaba539b9636f5"),
            "cad_nli_original": _cad("original", "27ef042f87b7181c79609b56734caed8fb9c09ba2627d0fe876f7248141fdff7",
                                     "07154b31ea7cf1bb0ac33e37bec143b928edbf2c964a73988973e5c0fe039b07"),
            "monli": _monli("pmonli", "a5b5d8e1c683c874ed3d68c0fffb74ba37010db4f2bcf0983f0d1a60e2faf72f", also=(
                _monli("nmonli_train", "c6fd6766fd21d6fb89337ddd821bd39f0c7a6004b141f89aca4f8c2bf9d27fe5"),
                _monli("nmonli_test", "f7bdb98d2e16b19aaa436b4d2165afab2420a776ed6f19f6ed12f14448be8ff3"))),
            "anli_r1": _anli(1, "5d8b94096aad2b7a067c41e07c02ea1350bf2c1ae9a1c7d444ffadd3bdc8e43e"),
            "anli_r2": _anli(2, "da676b66bdb0ffab045aa6500425115efe20665355bff15dce16b05cf9819984"),
            "anli_r3": _anli(3, "c3152a786c222c9cd8f4f6406c6f9f54bd66b45a8ff34efd174e4c691f652c4f"),
        },
    ),
    Task(
        "fever", ("SUPPORTS", "REFUTES"), "evidence", "claim",
        {name: Ood(("SUPPORTS", "REFUTES")) for name in ("sym1", "sym2")}, "b_only",
        "CC BY-SA and Wikipedia's terms", f"FEVER as linked by the FeverSymmetric README; {SYM_URL}",
        "Two-way: NOT ENOUGH INFO is left out, while the paper trains three-way. Half of the Symmetric claims stand in "
        "FEVER dev, which is test here: select on dev only. Train and dev hold far more SUPPORTS than REFUTES, test as "
        "many: part of what a model loses on test is a shift of labels. Sym1 and Sym2 share 242 claims.",
        {
            "train": _fever("train.jsonl.gz", "v1a0depfg7jp90f/fever.train.jsonl",
                            "0c98597d0c56a6103450dde24b797501d441b59670dba365cbc88960e0927e87",
                            "all SUPPORTS and REFUTES rows, two-way"),
            "test": _fever("dev.jsonl", "bdwf46sa2gcuf6j/fever.dev.jsonl",
                           "fa24313db3e27929c27e2d7b66c717666d89f49def8f98ee7ee63a29d312aded",
                           "paper_dev and paper_test, two-way"),
            "sym1": _symmetric("symmetric_v0.1/fever_symmetric_generated.jsonl",
                               "83a4aac042192ebc159b4478dc5316f9e25094e41ddc97c3b1cea825ad2943eb",
                               text_a="evidence_sentence", label="label"),
            "sym2": _symmetric("symmetric_v0.2/fever_symmetric_test.jsonl",
                               "b2ff560615bd3337c858bc5b09256d04f39aaa034aaae2351bb2d6345c110f83"),
        },
        train_without=("sym1", "sym2"),
    ),
    Task(
        "qqp", ("not_duplicate", "duplicate"), "question1", "question2",
        {name: Ood(("not_duplicate", "duplicate"), score="balanced") for name in ("paws_qqp", "paws_wiki")}, "overlap",
        "QQP and PAWS-QQP: Quora's terms; PAWS-Wiki: free use",
        f"hub {GLUE} config qqp at {GLUE_REVISION}; hub {PAWS} config labeled_final at {PAWS_REVISION}",
        "The mirror's train and validation are subsets, train with a label mix of its own (47 % duplicates); its "
        "PAWS-Wiki holds 5,348 rows, the paper's test set 8,000. 102 of the 677 PAWS-QQP pairs also stand in PAWS-QQP "
        "train.",
        {
            "train": _qqp("train", "6bc81a9ed1d879d005c0a3b360acaa534f16f8520b30d1296e9cc5c7aeb7cdad",
                          "subset: 26,324 rows of a balanced part"),
            "test": _qqp("validation", "e00ec9f483d2f5e0593dafccc8cdeed04a4a1a9f1b5af7a3f23c6fa2a6170250",
                         "subset: 29,586 of 40,430 rows"),
            "paws_qqp": Table(
                "paws_qqp/dev_and_test.tsv", PAWS_COLUMNS, QQP_IDS,
                {"sha256:4f4688bdcaddc51c5acde571ec8d5a08b8d3abb01e6e1660a5fbb49d5d90f106": "all 677 rows"},
                by_hand="made from QQP by its authors' script, https://github.com/google-research-datasets/paws "
                        "(no hub carries it)"),
            "paws_wiki": Table(
                "paws_wiki/labeled_final-subset.parquet", PAWS_COLUMNS, QQP_IDS,
                {"sha256:b445880d4df374bc6ee160007424c2fd8a886df0de87566b44c61d039da0e9b9": "thin subset: 5,348 rows"},
                Hub(PAWS, "labeled_final", "test", PAWS_REVISION)),
        },
    ),
)}


def get(name_or_yaml_path: str | Path) -> Task:
    """A task of the study by its name, or a reader's own from its YAML file, whose path counts from the root."""
    name = str(name_or_yaml_path)
    if name.endswith((".yaml", ".yml")):
        from lib.tasks.own import read_task

        return read_task(ROOT / name, taken=TASKS)
    if name not in TASKS:
        raise StudyError(f"unknown task '{name}', nor does it end in .yaml as a task file{nearest(name, TASKS)}")
    return TASKS[name]
