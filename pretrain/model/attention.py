"""Attention's inner part: causal, and causal within documents, by the fastest kernel that the device has.

Contract: `attend(q, k, v, documents)` is softmax(q k / sqrt(H)) v over the keys that a query may see. Key/value
heads are copied only where no fused kernel shares them. `documents` keeps documents apart:
    None        one document per row: torch's fused attention, causal
    bool B1TT   a dense mask (`document_mask`), the reference: T^2 bytes per sequence, and no flash kernel
    int32 S     `document_bounds`: FlashAttention for rows of unequal length; shorter documents mean less work

The number of segments is rounded up to 32, 256, 2048, … with empty segments at the end, so that a compiled block is
not compiled again for each batch. Thread blocks of empty segments return at once. One segment per token would always
fit, but launch 8.4 million thread blocks per layer for 8192 tokens and set aside 17 GB in the backward pass. Segments
are counted on the host before tokens are sent, so nothing waits for the device.

Shape suffixes:  B sequences  T tokens  N query heads  K key/value heads  H d_head  S segment bounds
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

from twofold.special_ids import EOS_ID

_FEWEST_SEGMENTS, _SEGMENT_FACTOR = 32, 8


def attend(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, documents: Tensor | None) -> Tensor:
    """Causal attention BNTH of q over k and v, within documents if they are given."""
    if documents is not None and documents.dtype == torch.int32:
        return _within_bounds(q_BNTH, k_BKTH, v_BKTH, documents)
    if not takes_grouped_heads(q_BNTH.device.type, q_BNTH.dtype, masked=documents is not None):
        shared = q_BNTH.shape[1] // k_BKTH.shape[1]
        k_BKTH, v_BKTH = (x.repeat_interleave(shared, dim=1) for x in (k_BKTH, v_BKTH))
    grouped = q_BNTH.shape[1] != k_BKTH.shape[1]
    return F.scaled_dot_product_attention(
        q_BNTH, k_BKTH, v_BKTH, attn_mask=documents, is_causal=documents is None, enable_gqa=grouped
    )


def takes_grouped_heads(device: str, dtype: torch.dtype, masked: bool) -> bool:
    """Whether a fused kernel shares key/value heads by itself.

    On CUDA only cuDNN's and FlashAttention do, for half precision and without a mask. The memory-efficient kernel
    needs equal heads; plain operators need T^2 scores per head.
    """
    return device != "cuda" or (dtype in (torch.bfloat16, torch.float16) and not masked)


def document_mask(tokens_BT: Tensor) -> Tensor:
    """Which token sees which, bool B1TT: itself and the earlier ones of its own document.

    A document ends with EOS_ID, which occurs nowhere else (a special token's name in a text stays text). Rotary
    angles need no restart, since attention depends on differences only.
    """
    ended_BT = (tokens_BT == EOS_ID).cumsum(1)
    document_BT = ended_BT - (tokens_BT == EOS_ID).long()  # EOS belongs to the document that it ends
    same_BTT = document_BT[:, :, None] == document_BT[:, None, :]
    return same_BTT.tril()[:, None]


def document_bounds(tokens_BT: Tensor) -> Tensor:
    """The same documents as bounds S, int32, in the rows laid end to end: 0, each end, then B x T repeated.

    A row's end is a bound as well. `tokens_BT` should be on the host, since the number of documents decides S.
    """
    ends_BT = tokens_BT == EOS_ID
    ends_BT[:, -1] = True
    ends = ends_BT.flatten().nonzero()[:, 0] + 1
    bounds_S = torch.full((segments(len(ends)) + 1,), tokens_BT.numel(), dtype=torch.int32, device=tokens_BT.device)
    bounds_S[0] = 0
    bounds_S[1 : len(ends) + 1] = ends
    return bounds_S


def segments(documents: int) -> int:
    """Number of segments for that many documents: 32, 256, 2048, …"""
    number = _FEWEST_SEGMENTS
    while number < documents:
        number *= _SEGMENT_FACTOR
    return number


def fastest_first(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which torch's attention on CUDA tries cuDNN, FlashAttention-2, the memory-efficient kernel, plain.

    To be entered around forward and backward pass, outside of compiled code: the kernel is chosen when that is traced,
    and torch.compile drops the order of a context inside of it.
    """
    if device.type != "cuda":
        return nullcontext()
    names = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
    order = [getattr(SDPBackend, name) for name in names if hasattr(SDPBackend, name)]
    return sdpa_kernel(order, set_priority=True)


def _within_bounds(q_BNTH: Tensor, k_BKTH: Tensor, v_BKTH: Tensor, bounds_S: Tensor) -> Tensor:
    B, _, T, _ = q_BNTH.shape
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q_BNTH, k_BKTH, v_BKTH))
    out_XNH = varlen(q, k, v, bounds_S, T)
    return out_XNH.view(B, T, *out_XNH.shape[1:]).transpose(1, 2)


def varlen(q_XNH: Tensor, k_XKH: Tensor, v_XKH: Tensor, bounds_S: Tensor, longest: int) -> Tensor:
    """torch's causal attention over segments of X = B x T rows, none longer than `longest`; XNH."""
    out_XNH: Any = varlen_attn(q_XNH, k_XKH, v_XKH, bounds_S, bounds_S, longest, longest, **_VARLEN_OPTIONS)
    return cast(Tensor, out_XNH)


def varlen_options(kernel: Callable[..., Any]) -> dict[str, Any]:
    """`kernel`'s arguments for "causal" and "grouped heads", whose names changed between torch 2.10 and 2.13."""
    known = inspect.signature(kernel).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    return {**causal, "enable_gqa": True} if "enable_gqa" in known else causal


_VARLEN_OPTIONS = varlen_options(varlen_attn)
