"""Exercise 22: text summarisation, BentoML's own quickstart, with the transformers of today.

bentoml serve solutions.ex22_summarize:Summarization
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
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=8)]


def load() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the model of SUMMARIZER.

    Raises BentoMLException: they cannot be loaded. It says so in one sentence.
    """
    try:
        model = AutoModelForSeq2SeqLM.from_pretrained(SUMMARIZER).eval()
        return AutoTokenizer.from_pretrained(SUMMARIZER), model
    except Exception as error:  # of transformers, of its hub, or of the file's format
        why = str(error).splitlines()[0]
        wanted = "Expected the folder of a summariser, or the name of one on the hub and a network to download it."
        raise BentoMLException(f"SUMMARIZER={SUMMARIZER} cannot be loaded: {why} {wanted}") from error


@bentoml.service(traffic={"timeout": 60, "max_concurrency": 64})
class Summarization:
    """Summarises texts with a model that reads one sequence of tokens and writes another."""

    @bentoml.on_deployment
    def check_model() -> None:
        """Runs once, before any worker: a missing model ends the start here. Downloads what is not here yet."""
        load()

    def __init__(self) -> None:
        self.tokenizer, self.model = load()
        # T5 does several tasks; the text begins with the one that it is to do.
        tasks = getattr(self.model.config, "task_specific_params", None) or {}
        self.prefix = tasks.get("summarization", {}).get("prefix", "")

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60_000)
    def summarize(self, texts: Texts) -> Json[list[str]]:
        """One summary for each text, in their order, of at most 60 tokens.
        `texts`: 1 to 8 texts of at most 20,000 characters each. The first 512 tokens are read.
        """
        texts = [self.prefix + text for text in texts]  # of all callers in this batch
        options = {"padding": True, "truncation": True, "max_length": MAX_TOKENS}
        read = self.tokenizer(texts, return_tensors="pt", **options)
        limits = {"max_new_tokens": MAX_NEW_TOKENS, "max_time": MAX_SECONDS}
        with torch.inference_mode():
            ids = self.model.generate(**read, do_sample=False, num_beams=1, **limits)
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True)


finish(Summarization)
