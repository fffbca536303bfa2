"""Recording a run of any training loop, on one process or many: `recorder.Recorder`."""
