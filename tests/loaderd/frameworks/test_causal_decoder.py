"""Rows that are written together compute what they compute alone, whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest

SIZE = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENDS = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 1}
ROTARY = {**SIZE, "intermediate_size": 48, "max_position_embeddings": 128, "num_key_value_heads": 2}

NETWORKS: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": 97, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "Llama": ROTARY,
    "Qwen2": ROTARY,
    "Mistral": {**ROTARY, "sliding_window": 6},
    "Gemma3": {
        **ROTARY,
        "head_dim": 8,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "GPTNeoX": {**SIZE, "intermediate_size": 48, "max_position_embeddings": 128},
    "OPT": {**SIZE, "ffn_dim": 48, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    "Bloom": {"vocab_size": 97, "hidden_size": 32, "n_layer": 2, "n_head": 4},
}
CLASSES = {"GPT2": "GPT2LMHeadModel"}
CONFIGS = {"Gemma3": "Gemma3TextConfig"}

PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [40], [60, 61, 62], [20, 21, 22, 23, 24]]
LENGTHS = [14, 20, 5, 11]


def network(name: str) -> Any:
    """With random weights, larger than usual, so that its answers differ."""
    import torch
    import transformers

    torch.set_num_threads(1)  # more of them wait for each other where the cores are busy
    torch.manual_seed(0)
    config = getattr(transformers, CONFIGS.get(name, f"{name}Config"))(**NETWORKS[name], **ENDS)
    made = getattr(transformers, CLASSES.get(name, f"{name}ForCausalLM"))(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
    return made


def alone(made: Any, prompt: list[int], tokens: int) -> list[int]:
    import torch

    with torch.inference_mode():
        given = torch.tensor([prompt])
        written = made.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=tokens, pad_token_id=1
        )
    return written[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("chunk_tokens", [256, 4])
def test_rows_that_join_and_leave_are_written_as_if_they_were_alone(name: str, chunk_tokens: int) -> None:
    from loaderd.frameworks.transformers.causal_decoder import CausalDecoder, decodes

    made = network(name)
    assert decodes(made)
    decoder = CausalDecoder(made)
    assert decoder.max_rows > 1
    decoder.chunk_tokens = chunk_tokens
    expected = [alone(made, prompt, tokens) for prompt, tokens in zip(PROMPTS, LENGTHS, strict=True)]
    written: list[list[int]] = [[] for _ in PROMPTS]
    rows: list[int] = []
    coming = [[0, 1], [2], [3]]  # the first two are read together
    while coming or rows:
        if coming:
            together = coming.pop(0)
            reading = decoder.read([PROMPTS[at] for at in together])
            while (logits := reading.advance()) is None:
                pass
            for at, row in zip(together, logits, strict=True):
                written[at].append(int(row.argmax()))
            decoder.join(reading, range(len(together)))
            rows += together
        for at, row in zip(rows, decoder.step([written[at][-1] for at in rows]), strict=True):
            written[at].append(int(row.argmax()))
        kept = [place for place, at in enumerate(rows) if len(written[at]) < LENGTHS[at]]
        rows = [rows[place] for place in kept]
        decoder.keep(kept)
    assert written == expected


def test_one_prompt_is_read_once_for_several_rows() -> None:
    from loaderd.frameworks.transformers.causal_decoder import CausalDecoder

    made = network("Llama")
    decoder = CausalDecoder(made)
    reading = decoder.read([PROMPTS[0]])
    logits = reading.advance()
    assert logits is not None
    first = int(logits[0].argmax())
    decoder.join(reading, [0, 0, 0])
    steps = decoder.step([first, first, 33])
    assert [int(steps[row].argmax()) for row in (0, 1)] == [alone(made, PROMPTS[0], 2)[1]] * 2
    assert int(steps[2].argmax()) == alone(made, [*PROMPTS[0], 33], 1)[0]


def test_the_memory_of_a_token_is_that_of_its_keys_and_values() -> None:
    from loaderd.frameworks.transformers.causal_decoder import CACHE_BYTES, CausalDecoder

    made = network("Llama")
    keys_and_values = 2 * 2 * 2 * 8 * 4  # two layers, two heads of eight floats
    assert CausalDecoder(made).max_cells == CACHE_BYTES // keys_and_values


def test_a_network_without_keys_and_values_is_told_apart() -> None:
    import transformers

    from loaderd.frameworks.transformers.causal_decoder import decodes

    config = transformers.MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=1, state_size=4)
    assert not decodes(transformers.MambaForCausalLM(config))
