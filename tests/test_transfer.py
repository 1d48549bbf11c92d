"""A trained twin as the start of a training on another cell."""

import threading
from dataclasses import replace

import jax
import numpy as np
import pytest

import reference
from celltwin import jobs, models
from celltwin import twin as twin_file
from celltwin.data.datasets import Dataset
from celltwin.data.splits import Split, shortened
from celltwin.errors import CelltwinError
from celltwin.interface import simulate_records
from celltwin.learning import training, transfer
from celltwin.learning.plan import Plan
from celltwin.learning.tasks import TASKS
from celltwin.models.aged import Aged

PLAN = Plan(adam_rounds=1, updates=10, lanes=4, chunk=50, learning_rate=1e-3, averaging=0.5)
