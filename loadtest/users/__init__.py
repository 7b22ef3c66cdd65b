"""The users of the load test: who talks to the gate, and how each is measured.

`vehicle` is what all vehicles share: a device, its schedule, what happens to it. `mqtt` and `https` are its two roads;
`attacker` is hostile, `query` an analyst. Only these modules, `shape` and locustfile.py know locust.
"""

from loadtest.scenario import Kind
from loadtest.users.attacker import Attacker
from loadtest.users.https import HttpsBatch, HttpsColumns, HttpsSingle
from loadtest.users.mqtt import MqttVehicle
from loadtest.users.query import Analyst
from locust import User

KINDS: dict[Kind, type[User]] = {
    "mqtt": MqttVehicle,
    "https_single": HttpsSingle,
    "https_batch": HttpsBatch,
    "https_columns": HttpsColumns,
    "query": Analyst,
    "attacker": Attacker,
}
