"""The stages of the study."""


MODEL_STAGES = ("02_teacher", "03_distillation", "04_pruning", "05_quantization_and_replacing", "07_mitigation")


STAGES = {"data": "01_data", "teacher": "02_teacher", "distillation": "03_distillation", "pruning": "04_pruning",
          "quantization": "05_quantization_and_replacing", "shortcut_samples": "06_shortcut_samples",
          "doses": "06b_dose_and_response", "mitigation": "07_mitigation", "mends": "07b_what_mends_it",
          "loyalty": "08_loyalty_and_attacks", "claims": "09_claims"}


OWN_STAGES = {"your_model": "10_your_model", "your_task": "11_your_task"}
