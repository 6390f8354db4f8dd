"""Shared by all trainings: the schedule of the learning rate, and the running mean of the weights."""
import math
import time

import torch


class LrSchedule:
    """A cosine decay from `lr` to 2 % of it, over `steps` steps or `minutes` of wall-clock time, whichever ends first."""

    def __init__(self, optimizer, lr, steps, minutes, warmup=100):
        self.optimizer, self.lr, self.steps, self.warmup = optimizer, lr, steps, warmup
        self.budget, self.start, self.step = 60 * minutes, time.time(), 0

    def __iter__(self):
        """Sets the learning rate of each step and yields the fraction of the training that is done."""
        while (done := max(self.step / self.steps, (time.time() - self.start) / self.budget)) < 1:
            rate = self.lr * min(1, (self.step + 1) / self.warmup) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield done
            self.step += 1


class Mean:
    """Exponential moving average of the parameters, which is saved instead of the parameters themselves."""

    def __init__(self, params, keep=0.998):
        self.params, self.keep, self.steps = list(params), keep, 0
        self.mean = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self):
        self.steps += 1
        keep = min(self.keep, self.steps / (self.steps + 9))
        for m, p in zip(self.mean, self.params):
            m.lerp_(p, 1 - keep)

    @torch.no_grad()
    def swap(self):
        """Exchanges the parameters and their mean. A second call restores them."""
        for m, p in zip(self.mean, self.params):
            held = p.detach().clone()
            p.copy_(m)
            m.copy_(held)


class Report:
    """Running means of named values, printed every `every` steps."""

    def __init__(self, every=50):
        self.every, self.figures, self.steps, self.start = every, {}, 0, time.time()

    def __call__(self, done, **figures):
        for name, value in figures.items():
            self.figures[name] = 0.97 * self.figures.get(name, value.item()) + 0.03 * value.item()
        self.steps += 1
        if self.steps % self.every == 0:
            text = "  ".join(f"{k} {v:.4f}" for k, v in self.figures.items())
            print(f"{self.steps}  {text}  {done:.1%}  {time.time() - self.start:.0f} s", flush=True)
