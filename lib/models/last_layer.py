"""What a finished model's last layer is fed."""

import numpy as np
import pandas as pd
import torch

from lib import store
from lib.models import batches, loop, make, pretrained


def input_norms(model: store.Model, items: pd.DataFrame, *, dtype: str = "fp32", device: str = "cpu") -> pd.Series:
    """|h| of each row but train's by guid, h what the last layer is fed; dtype: the encoder's precision."""
    items = items[items["split"] != "train"]
    network = make.load(model)
    network = (loop.bf16_copy(network) if dtype == "bf16" else network).to(device)
    encoded = batches.encode(pretrained.load_tokenizer(str(model.path)), items, model.record["max_length"])
    last = [part for part in network.modules() if isinstance(part, torch.nn.Linear)][-1]
    norms, fed = np.zeros(len(items)), []
    last.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    with torch.inference_mode():
        for rows in batches.eval_batches(encoded.lengths, 64):
            network(**loop.inputs(network, encoded, rows, device))
            norms[rows] = fed.pop().norm(dim=-1).cpu().numpy()
    return pd.Series(norms, index=items["guid"].to_numpy())
