"""The study's heavy logic: one module for each arrow from parameters to claims."""

import logging
import warnings

# transformers asks tqdm for notebook widgets; the study's bars are text, so the missing widgets are no news
warnings.filterwarnings("ignore", message="IProgress not found")

# transformers imports torchao with its first model, and both tell of kernels that are for other machines
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)
