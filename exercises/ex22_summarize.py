"""Exercise 22: text summarisation, BentoML's own quickstart, with the transformers of today.

bentoml serve exercises.ex22_summarize:Summarization
"""

import os
from typing import Annotated

import bentoml
import torch
from bentoml.exceptions import BentoMLException
from pydantic import Field, StringConstraints
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from serving.service import Json, finish

# A folder that `save_pretrained` wrote, or a name on the hub, from where it is downloaded once: this one has 242 MB.
SUMMARIZER = os.environ.get("SUMMARIZER") or "Falconsai/text_summarization"
MAX_TOKENS = 512  # of a text; what follows is not read
MAX_NEW_TOKENS = 60  # of a summary
MAX_SECONDS = float(os.environ.get("MAX_SECONDS", "20"))  # of a batch; then its summaries end where they are

# Checked while a request is read: what is refused never is in a batch with the texts of others.
# TODO 1: a text has 1 to 20,000 characters, without the spaces around it (StringConstraints), a request 1 to 8 texts (Field).
Text = str
Texts = list[Text]


def load() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the model of SUMMARIZER.

    Raises BentoMLException: they cannot be loaded. It says so in one sentence.
    """
    # TODO 2: AutoTokenizer and AutoModelForSeq2SeqLM have from_pretrained(SUMMARIZER); .eval() the model. They raise
    # OSError and others, of many lines: raise BentoMLException with SUMMARIZER, the first line, and what you expected.
    raise BentoMLException("Still to do: load the tokenizer and the model.")


@bentoml.service(traffic={"timeout": 60, "max_concurrency": 64})
class Summarization:
    """Summarises texts with a model that reads one sequence of tokens and writes another."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a missing model ends the start here. Downloads what is not here yet."""
        # TODO 3: load() here as well.
        raise BentoMLException("Still to do: load the model before any worker does.")

    def __init__(self) -> None:
        # TODO 4: keep what load() returns in self.tokenizer and self.model. pipeline() also put a prefix before each
        # text, where the model's config has one: keep it in self.prefix, "" for a model without.
        raise NotImplementedError("Load the tokenizer and the model.")

    @bentoml.api  # TODO 5: as in exercise 11: batches of at most 16 texts, and a minute for the slowest answer.
    def summarize(self, texts: Texts) -> Json[list[str]]:
        """One summary for each text, in their order, of at most 60 tokens.
        `texts`: 1 to 8 texts of at most 20,000 characters each. The first 512 tokens are read.
        """
        # TODO 6: what pipeline() did: self.prefix before each text; the tokenizer, which pads and truncates;
        # self.model.generate without sampling and beams, and with both limits, in torch.inference_mode(); batch_decode.
        raise NotImplementedError("Answer one summary for each text.")


finish(Summarization)
