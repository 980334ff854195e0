"""Plain forward passes and the plain tokenizer of published models: references for the tests."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def plain_llama(arrays: Any, ids: list[int], heads: int = 8, key_heads: int = 4) -> np.ndarray:
    """llama2.c's forward pass: next-token logits at every position, (t, vocabulary)."""

    def norm(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
        return gain * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    def rotate(x: np.ndarray) -> np.ndarray:
        d = x.shape[-1]
        angle = np.arange(len(ids))[:, None] * 10000.0 ** (-np.arange(0, d, 2) / d)
        turned = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angle)[:, None]
        return np.stack([turned.real, turned.imag], -1).reshape(x.shape)

    a = {name: arrays[name].astype(np.float64) for name in arrays.files}
    x, t = a["tok_emb"][ids], len(ids)
    future = np.triu(np.full((t, t), -np.inf), 1)
    for layer in range(len(a["wq"])):
        h = norm(x, a["att_norm"][layer])
        query = rotate((h @ a["wq"][layer].T).reshape(t, heads, -1))
        key = rotate((h @ a["wk"][layer].T).reshape(t, key_heads, -1))
        value = (h @ a["wv"][layer].T).reshape(t, key_heads, -1)
        out = []
        for head in range(heads):
            shared = head // (heads // key_heads)
            scores = query[:, head] @ key[:, shared].T / np.sqrt(query.shape[-1]) + future
            out.append(softmax(scores) @ value[:, shared])
        x = x + np.concatenate(out, -1) @ a["wo"][layer].T
        h = norm(x, a["ffn_norm"][layer])
        gate = h @ a["w1"][layer].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ a["w3"][layer].T)) @ a["w2"][layer].T
    return norm(x, a["final_norm"]) @ a["tok_emb"].T


def plain_transliteration(arrays: Any, source: list[int], prefix: list[int]) -> np.ndarray:
    """OpenNMT's forward pass: logits (t, vocabulary) for the letter after each of the prefix."""
    a = {name: arrays[name].astype(np.float64) for name in arrays.files}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ a[f"{name}/weight"].T + a[f"{name}/bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * a[f"{name}/layer_norm/gamma"] + a[f"{name}/layer_norm/beta"]

    def embed(ids: list[int], side: str) -> np.ndarray:
        table = a[f"{side}/embeddings/weight"]
        half = table.shape[1] // 2
        angle = np.arange(1, len(ids) + 1)[:, None] / 10000 ** (np.arange(half) / (half - 1))
        return table[ids] * np.sqrt(2 * half) + np.hstack([np.sin(angle), np.cos(angle)])

    def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Any = 0.0) -> np.ndarray:
        heads = [part.reshape(len(part), 8, 4).transpose(1, 0, 2) for part in (q, k, v)]
        mixed = softmax(heads[0] @ heads[1].transpose(0, 2, 1) / 2 + mask) @ heads[2]
        return mixed.transpose(1, 0, 2).reshape(q.shape)

    def layers(x: np.ndarray, side: str, mask: Any, memory: np.ndarray | None) -> np.ndarray:
        for i in range(6):
            at = f"{side}/layer_{i}"
            fused = linear(norm(x, f"{at}/self_attention"), f"{at}/self_attention/linear_0")
            mixed = attend(*np.split(fused, 3, axis=1), mask)
            x = x + linear(mixed, f"{at}/self_attention/linear_1")
            if memory is not None:
                query = linear(norm(x, f"{at}/attention"), f"{at}/attention/linear_0")
                fused = linear(memory, f"{at}/attention/linear_1")
                mixed = attend(query, *np.split(fused, 2, axis=1))
                x = x + linear(mixed, f"{at}/attention/linear_2")
            hidden = np.maximum(linear(norm(x, f"{at}/ffn"), f"{at}/ffn/linear_0"), 0)
            x = x + linear(hidden, f"{at}/ffn/linear_1")
        return norm(x, side)

    memory = layers(embed(source, "encoder"), "encoder", 0.0, None)
    future = np.triu(np.full((len(prefix),) * 2, -np.inf), 1)
    top = layers(embed(prefix, "decoder"), "decoder", future, memory)
    return linear(top, "decoder/projection")


def plain_encode(vocabulary: list[str], scores: list[float], text: str) -> list[int]:
    """llama2.c's encoder: again and again, join the neighbours whose union scores highest."""
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    tokens: list[int] = []
    for letter in " " + text if text else "":
        tokens += [ids[letter]] if letter in ids else [byte + 3 for byte in letter.encode()]
    while True:
        unions = [ids.get(vocabulary[a] + vocabulary[b]) for a, b in pairwise(tokens)]
        known = [i for i, union in enumerate(unions) if union is not None]
        if not known:
            return [1, *tokens]
        best = max(known, key=lambda i: (scores[unions[i]], -i))
        tokens[best : best + 2] = [unions[best]]
