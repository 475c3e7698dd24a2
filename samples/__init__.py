"""The sample models: what they are, the emails they learn from, and one trainer per framework.

`manage.py demo_models` makes them. Each trainer is a program of its own (`python -m samples.train_sklearn`),
so that nobody who asks for samples has to import a model library; the other modules need the standard library only.
"""
