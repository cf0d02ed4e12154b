"""A summariser with random weights, made without a network: its summaries are nonsense, and another one for each text."""

import string
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

PREFIX = "summarize: "  # T5 was trained with one for each task
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
TOKENS = [*SPECIAL.values(), *string.ascii_letters, *string.digits, *string.punctuation, " "]  # a character is a token


def make(output: Path) -> None:
    """Save the tokenizer and the model to a folder, 0.2 MB, as `save_pretrained` does."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(output)  # says no longest text

    torch.manual_seed(4)
    sizes = {"vocab_size": len(TOKENS), "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    tokens = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False}
    config = T5Config(**sizes, **tokens, task_specific_params={"summarization": {"prefix": PREFIX}})
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.5 * torch.randn_like(weight))
    # Such files also say how to generate: here at random, and more than a service wants.
    model.generation_config.update(do_sample=True, temperature=2.0, max_length=400)
    model.save_pretrained(output)


def summaries(folder: Path, texts: list[str], tokens_read: int, max_new_tokens: int) -> list[str]:
    """The most likely summary of each text, one after the other."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    torch.set_num_threads(1)  # more would only slow down so small a model
    found = []
    for text in texts:
        read = tokenizer(PREFIX + text, return_tensors="pt", truncation=True, max_length=tokens_read)
        with torch.inference_mode():
            ids = model.generate(**read, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
        found.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    return found
