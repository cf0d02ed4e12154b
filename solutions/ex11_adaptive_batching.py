"""Exercise 11: adaptive batching. Requests that come while a batch runs make the next batch.

bentoml serve solutions.ex11_adaptive_batching:ImageClassifierService
"""

import os

import bentoml
import numpy as np

from serving.service import Classifier, ImageBatch, Json, NpyFile, finish

# max_batch_size is in rows. max_latency_ms is not a time to wait for a batch to fill: it is how long a request may
# take before it is cancelled with 503. Never reached here; the timeout of 30 s and max_concurrency bound the queue.
BATCHING = {"batchable": True, "max_batch_size": 32, "max_latency_ms": 60_000}
if os.environ.get("BATCHING") == "0":  # the same service without, to compare
    BATCHING = {}


@bentoml.service(traffic={"timeout": 30, "max_concurrency": 256})
class ImageClassifierService(Classifier):
    """Classifies images, tensors in batches made of the requests of many callers."""

    # Both arguments are checked while a request is read, before the queue: a bad row in a batch would fail all rows.
    @bentoml.api(**BATCHING)
    def predict(self, image: ImageBatch) -> Json[np.ndarray]:
        """Logits, (batch, 1000) float32, for 1 to 16 images.
        `image`: (batch, 3, 224, 224) numbers of any type, preprocessed and normalised as ImageNet models expect.
        """
        return self.run(image)  # image: the rows of several requests; BentoML gives each its own rows of the answer

    @bentoml.api(**BATCHING)
    def predict_npy(self, image: NpyFile, /) -> Json[np.ndarray]:
        """As predict, with a .npy file, what numpy.save() writes, as the whole body."""
        return self.run(image)

    # `classify` is Classifier's, not batched: files would have to be decoded inside the batch, where one broken file
    # fails all, or before the queue, on the event loop, where decoding keeps everybody waiting.


finish(ImageClassifierService)
