"""Exercise 10's service under the name that the course promises.

bentoml serve solutions.bentoml_service:ImageClassifierService
"""

from solutions.ex10_service import ImageClassifierService

__all__ = ["ImageClassifierService"]
