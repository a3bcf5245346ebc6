"""How the original CBLUE files code their labels.

From the CBLUE repository (README, format checkers) and IMCS-V2's (lemuria-wchen/imcs21-cblue).
"""

from collections.abc import Mapping

from mingmoe_eval.promptcblue.label_sets import (
    CMEEE_TYPES,
    CTC_CRITERIA,
    DAC_INTENTS,
    IMCS_NER_TYPES,
    MDCFNPC_STATUSES,
    NO_SUCH_CLASS,
    QIC_INTENTS,
    QQR_RELATIONS,
    QTR_GRADES,
    SR_STATUSES,
)


def _in_order(codes: tuple[str, ...], labels: tuple[str, ...]) -> Mapping[str, str]:
    return dict(zip(codes, labels, strict=True))


CMEEE = _in_order(("mic", "equ", "dis", "sym", "bod", "pro", "dep", "ite", "dru"), CMEEE_TYPES)
IMCS_NER = _in_order(
    ("Drug", "Operation", "Drug_Category", "Symptom", "Medical_Examination"), IMCS_NER_TYPES
)
MDCFNPC = _in_order(("阳性", "阴性", "其他", "不标注"), MDCFNPC_STATUSES)
SR = _in_order(("0", "1", "2"), SR_STATUSES)
STS = {"1": "是的", "0": "不是"}
IR = {"1": "相关", "0": "不相关"}
QTR = _in_order(("0", "1", "2", "3"), QTR_GRADES)
QQR = {
    "2": QQR_RELATIONS[0],
    "1": QQR_RELATIONS[1],
    # CBLUE's 0 is both "wider" and "unrelated", which PromptCBLUE keeps apart.
    "0": "后者是前者的语义父集或语义无直接关联",
}
QIC = {
    **{label: label for label in QIC_INTENTS},
    "疾病表述": "疾病描述",
    "其他": NO_SUCH_CLASS,
}
DAC = _in_order(
    (
        "Request-Symptom",
        "Inform-Symptom",
        "Request-Etiology",
        "Inform-Etiology",
        "Request-Basic_Information",
        "Inform-Basic_Information",
        "Request-Existing_Examination_and_Treatment",
        "Inform-Existing_Examination_and_Treatment",
        "Request-Drug_Recommendation",
        "Inform-Drug_Recommendation",
        "Request-Medical_Advice",
        "Inform-Medical_Advice",
        "Request-Precautions",
        "Inform-Precautions",
        "Diagnose",
        "Other",
    ),
    DAC_INTENTS,
)
CTC = _in_order(
    (
        "Disease",
        "Symptom",
        "Sign",
        "Pregnancy-related Activity",
        "Neoplasm Status",
        "Non-Neoplasm Disease Stage",
        "Allergy Intolerance",
        "Organ or Tissue Status",
        "Life Expectancy",
        "Oral related",
        "Pharmaceutical Substance or Drug",
        "Therapy or Surgery",
        "Device",
        "Nursing",
        "Diagnostic",
        "Laboratory Examinations",
        "Risk Assessment",
        "Receptor Status",
        "Age",
        "Special Patient Characteristic",
        "Literacy",
        "Gender",
        "Education",
        "Address",
        "Ethnicity",
        "Consent",
        "Enrollment in other studies",
        "Researcher Decision",
        "Capacity",
        "Ethical Audit",
        "Compliance with Protocol",
        "Addictive Behavior",
        "Bedtime",
        "Exercise",
        "Diet",
        "Alcohol Consumer",
        "Sexual related",
        "Smoking Status",
        "Blood Donation",
        "Encounter",
        "Disabilities",
        "Healthy",
        "Data Accessible",
        "Multiple",
    ),
    CTC_CRITERIA,
)
