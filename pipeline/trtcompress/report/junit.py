"""junit.xml: one test case a gate, so that CI shows them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree


def junit_xml(facts: dict[str, Any]) -> str:
    """XML text from the record of a build. What could not be measured is `skipped`, never passed."""
    suites = ElementTree.Element("testsuites", name=facts["name"])
    for validation in facts["validations"]:
        shipped = next(c for c in validation["candidates"] if c["engine"]["encoding"] == validation["shipped"])
        gates = shipped["gates"]
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=validation["target"],
            tests=str(len(gates)),
            failures=str(sum(gate["verdict"] == "fail" for gate in gates)),
            skipped=str(sum(gate["verdict"] == "not_measured" for gate in gates)),
        )
        for gate in gates:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"{facts['name']}.{validation['target']}", name=gate["gate"]
            )
            if gate["verdict"] == "fail":
                ElementTree.SubElement(case, "failure", message=gate["explained"])
            elif gate["verdict"] == "not_measured":
                ElementTree.SubElement(case, "skipped", message=gate["explained"])
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"
