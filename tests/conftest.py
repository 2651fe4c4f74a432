"""What every test needs: the settings of the Makefile, for those who call pytest themselves; and a tiny study."""
import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pandas as pd
import pytest

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]


@pytest.fixture(scope="session")
def tiny_encoder():
    """Writes a BERT of two layers with a tokenizer of whole words into a plain `from_pretrained` folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    def write(folder, texts, seed=0):
        words = sorted({word for text in texts for word in text.split()})
        tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + words)}, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
            model_max_length=64, model_input_names=["input_ids", "token_type_ids", "attention_mask"]).save_pretrained(folder)
        torch.manual_seed(seed)
        BertModel(BertConfig(vocab_size=len(SPECIAL + words), hidden_size=16, intermediate_size=32, num_attention_heads=4,
                             num_hidden_layers=2, max_position_embeddings=64, initializer_range=0.3)).save_pretrained(folder)
        return str(folder)
    return write


@pytest.fixture(scope="module")
def micro():
    """A few rows of a micro-world task."""
    from lib.tasks import microworld
    return microworld.generate("micro_nli", seed=0, n_train=64, n_eval=20, n_ood=4)


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory, micro, tiny_encoder):
    """A run of 12 steps; its outputs lie in a temporary folder, shared by a file's tests."""
    import torch

    from lib.params import schema
    from lib.params.profile import load_profile
    root = tmp_path_factory.mktemp("study")
    encoder = tiny_encoder(root / "tiny", pd.concat([micro["text_a"], micro["text_b"]]))
    fields = dict(encoder=encoder, encoder_layers=0, epochs=1.5, batch_size=8, learning_rate=0.01, dropout=0.1, max_length=48,
                  dtype="fp32", device="cpu", threads=1)
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "ROOT", root)
        yield load_profile("smoke").run("quantization", "micro_nli", 0).model_copy(update=fields)
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
