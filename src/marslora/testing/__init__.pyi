from .executors_contract import ExecutorContract as ExecutorContract
from .exporters_contract import ExporterContract as ExporterContract
from .gradients_contract import CombinerContract as CombinerContract
from .optim_contract import OptimizerContract as OptimizerContract
from .solo import Solo as Solo
from .strategies_contract import StrategyContract as StrategyContract
