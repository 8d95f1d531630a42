"""How FLUX.2 reads prompts: as three layers of a language model, side by side, for each of 512 tokens.

dev reads with Mistral Small 3.2, klein with Qwen3. Neither is asked to go on writing, so whatever lies above the last
of the three layers is not even loaded: of Qwen3's 36 layers 9, of Mistral's 40 layers 10, and its eyes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from torch import Tensor, nn
from transformers import Mistral3Model, PreTrainedTokenizerFast, Qwen2Tokenizer, Qwen3Model

MOST_TOKENS = 512
"""Tokens of a prompt with all that surrounds it. Shorter ones are filled up, as the models were trained."""

QWEN_LAYERS = (9, 18, 27)
MISTRAL_LAYERS = (10, 20, 30)
UNREAD = [r"layers\.\d+\.", r"norm\.weight", "lm_head", "vision_tower", "multi_modal_projector"]
"""What the files hold and nobody reads. A layer that is read and missing is still missed."""
OLDER, NEWER = r"^language_model\.model\.", "language_model."
"""What the names of Mistral's weights begin with, in files of both ages."""


class QwenLayers(Qwen3Model):  # type: ignore[misc]
    """Qwen3 up to the last layer that is read, without the normalisation that follows all of them."""

    _keys_to_ignore_on_load_unexpected = UNREAD

    def __init__(self, config: Any) -> None:
        config.num_hidden_layers = QWEN_LAYERS[-1]
        super().__init__(config)
        self.norm = nn.Identity()


class MistralLayers(Mistral3Model):  # type: ignore[misc]
    """The language part of Mistral Small 3 up to the last layer that is read."""

    _keys_to_ignore_on_load_unexpected = UNREAD

    def __init__(self, config: Any) -> None:
        config.text_config.num_hidden_layers = MISTRAL_LAYERS[-1]
        super().__init__(config)
        del self.vision_tower, self.multi_modal_projector
        self.language_model.norm = nn.Identity()

    @classmethod
    def from_pretrained(cls, *where: Any, **options: Any) -> Any:
        """The same as of any other network. Files name the parts in an older way or in a newer one."""
        return super().from_pretrained(*where, key_mapping={OLDER: NEWER}, **options)

    @classmethod
    def renamed(cls, name: str) -> str:
        """What is called `name` in a file, in the newer way."""
        return re.sub(OLDER, NEWER, name)


def _to_qwen(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}]


def _to_mistral(prompt: str) -> list[dict[str, Any]]:
    # The mark of a picture would promise one that is not there.
    said = {"system": SYSTEM_MESSAGE, "user": prompt.replace("[IMG]", "")}
    return [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said.items()]


@dataclass(frozen=True)
class Reader:
    """A language model that reads prompts: its network and tokenizer, which layers, and how it is spoken to."""

    network: Any
    tokenizer: Any
    layers: tuple[int, ...]
    conversation: Callable[[str], list[dict[str, Any]]]
    options: Mapping[str, bool] = field(default_factory=dict)

    def read(self, network: Any, tokenizer: Any, prompt: str, device: torch.device) -> Tensor:
        """The embedding [1, 512, 3D] of a prompt."""
        tokens = self._tokens(tokenizer, prompt, padding="max_length", max_length=MOST_TOKENS, truncation=True)
        tokens = tokens.convert_to_tensors("pt", prepend_batch_axis=True).to(device)
        states = network(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        return torch.cat([states[layer] for layer in self.layers], dim=-1)

    def left_out(self, tokenizer: Any, prompt: str) -> str:
        """The end of a prompt that lies behind the last token that is read."""
        ends = [end for _, end in self._tokens(tokenizer, prompt, return_offsets_mapping=True).offset_mapping]
        if len(ends) <= MOST_TOKENS:
            return ""
        before, after = self._words(tokenizer, "\0").split("\0")
        words = self._words(tokenizer, prompt)
        return words[max(ends[MOST_TOKENS - 1], len(before)) : len(words) - len(after)].strip()

    def _words(self, tokenizer: Any, prompt: str) -> str:
        words: str = tokenizer.apply_chat_template(self.conversation(prompt), tokenize=False, **self.options)
        return words

    def _tokens(self, tokenizer: Any, prompt: str, **options: Any) -> Any:
        words = self._words(tokenizer, prompt)
        begun = tokenizer.bos_token is not None and words.startswith(tokenizer.bos_token)
        return tokenizer(words, add_special_tokens=not begun, verbose=False, **options)


READERS: Mapping[str, Reader] = {
    "qwen3": Reader(
        QwenLayers, Qwen2Tokenizer, QWEN_LAYERS, _to_qwen, {"add_generation_prompt": True, "enable_thinking": False}
    ),
    # Its file says how it cuts words, whatever class its configuration names; its processor reads it so, too.
    "mistral3": Reader(MistralLayers, PreTrainedTokenizerFast, MISTRAL_LAYERS, _to_mistral),
}
"""By the `model_type` in the text encoder's configuration. Of Mistral's processor only the tokenizer is of use: the
rest is for pictures, and wants torchvision."""


def size_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """Layers, and numbers for each token in each of them, of the language model with this configuration."""
    language = config.get("text_config", config)
    return int(language.get("num_hidden_layers", 0)), int(language.get("hidden_size", 0))
