"""Prompts recorded as chat messages are tokenised as the policy was asked: with or without a thinking part."""

import json

import polars as pl
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from entropy_lab.rl.recorded_tokens import Retokeniser

TEMPLATE = (
    "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    "{% if add_generation_prompt %}a{% if enable_thinking is false %}t{% endif %}{% endif %}"
)
MESSAGES = json.dumps([{"role": "user", "content": "q"}])


@pytest.fixture(scope="module")
def tokenizer():
    letters = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate("e<>qat")}, unk_token="e"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="e")
    made.chat_template = TEMPLATE
    return made


@pytest.mark.parametrize(
    ("kind", "asked"), [("text", "<q>a"), ("plain", "<q>a"), ("chat", "<q>at"), ("system-boxed", "<q>at")]
)
def test_messages_are_rendered_with_thinking_off_where_the_run_had_it_off(tokenizer, kind, asked):
    frame = pl.DataFrame({"prompt": [MESSAGES], "completion": ["q"], "truncated": [False]})
    found = Retokeniser(lambda: tokenizer, kind).tokens(frame)
    assert tokenizer.decode(found.prompts[0]).replace(" ", "") == asked
    assert found.prompts_redone
