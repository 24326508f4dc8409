"""The shipped policy grants what the node uses, and nothing else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from ros.desk import Desk, until
from sensor_msgs.msg import CompressedImage


def test_the_policy_names_exactly_the_topics_and_services_of_the_node(
    desk: Desk, repository: Path
) -> None:
    policy = ElementTree.parse(repository / "config" / "sros2" / "derain.policy.xml")

    def granted(kind: str, right: str) -> set[str]:
        found = policy.findall(f".//{kind}s[@{right}='ALLOW']/{kind}")
        assert found
        return {absolute(element.text or "") for element in found}

    def absolute(name: str) -> str:
        name = name.replace("~/", "/derain/")
        return name if name.startswith("/") else f"/{name}"

    node = desk.derainer({"bypass.mode": "always", "output.compressed": True, "use_sim_time": True})
    desk.inbox()
    desk.inbox("image_derained/compressed", CompressedImage)
    seen: set[str] = set()

    def used(kind: str) -> set[str]:
        found = getattr(desk.tools, f"get_{kind}_names_and_types_by_node")("derain", "/")
        return {name for name, _ in found}

    until(lambda: node.cameras and node.cameras[0].transport, "a node that listens")
    until(lambda: used("publisher") == granted("topic", "publish"), "what is published")
    until(lambda: used("service") == granted("service", "reply"), "the services")
    for topic, kind in (("image", None), ("image/compressed", CompressedImage)):
        publisher = desk.publisher(topic) if kind is None else desk.publisher(topic, kind)
        until(lambda topic=topic: f"/{topic}" in used("subscriber"), f"subscription to {topic}")
        seen |= used("subscriber")
        desk.tools.destroy_publisher(publisher)
    assert seen == granted("topic", "subscribe")
    assert not used("client")
