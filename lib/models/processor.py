"""What a machine computes with, in words: on another kind of processor bf16 rounds otherwise, which acts as another
seed does."""

import platform

import torch

UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bf16", "avx512_f": "AVX-512", "avx2": "AVX2"}


def name(device: str) -> str:
    """The card's name, or that of the CPU with its widest vector or matrix unit, such as "AMD EPYC (AVX2)"."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    can = torch.cpu.get_capabilities()
    unit = next((unit for feature, unit in UNITS.items() if can.get(feature)), "")
    return (can.get("cpu_name") or platform.processor() or platform.machine()) + f" ({unit})" * bool(unit)
