"""Makes a small language model with random weights, without a network.

    python memacct_make_model.py FOLDER

About 220 MB of weights: enough that loading them is a visible phase, little enough that it is
short. 4 KV heads, so that tensor parallelism 2 and 4 divide it.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Writes config.json and the weights to the folder named by the first argument."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=4,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
