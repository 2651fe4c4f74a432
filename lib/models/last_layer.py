"""What a model's last layer is fed."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lib.models import loop
from lib.models.batches import Encoded, eval_batches


def input_norms(model: PreTrainedModel, encoded: Mapping[str, Encoded], items: pd.DataFrame, dtype: str,
                device: str) -> pd.DataFrame:
    """|h| of each row of the encoded splits, h what the last layer is fed: guid | norm; dtype: the encoder's
    precision."""
    worker = (loop.bf16_copy(model) if dtype == "bf16" else model).to(device).eval()
    last = [part for part in worker.modules() if isinstance(part, torch.nn.Linear)][-1]
    fed: list[torch.Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0]))
    guids, norms = [], []
    try:
        with torch.inference_mode():
            for split, rows_of in encoded.items():
                found = np.zeros(len(rows_of.labels))
                for rows in eval_batches(rows_of.lengths, 64):
                    worker(**loop.inputs(worker, rows_of, rows, device))
                    found[rows] = fed.pop().float().norm(dim=-1).cpu().numpy()
                norms.append(found)
                guids.append(items.loc[items["split"] == split, "guid"].to_numpy())
    finally:
        hook.remove()
    return pd.DataFrame({"guid": np.concatenate(guids), "norm": np.concatenate(norms)})
