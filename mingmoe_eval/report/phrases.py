"""What runs say of themselves in English, in Chinese: marks, tests, readings, notes.

Such texts are made where the fact is found and stored in runs, so that a page meets them as they
are. One that is not known here stays as it is, and the page says that it is English.
"""

import re

_PHRASES: tuple[tuple[str, str], ...] = (
    # Marks: why numbers are not the benchmark's.
    ("invented sample", "虚构样例"),
    (r"first (\d+) docs", r"仅前 \1 题"),
    (r"split (\S+)", r"\1 划分"),
    ("partial", "部分数据"),
    ("not the whole benchmark", "非完整基准"),
    (r"([\d,]+) rows, where the official part has ([\d,]+)", r"\1 行，官方为 \2 行"),
    (r"at most (\d+) options, where the exam has (\d+)", r"最多 \1 个选项，原考试为 \2 个"),
    (r"([\d,]+) of ([\d,]+) questions have no answer", r"\2 题中有 \1 题没有答案"),
    (r"records converted from (.+)", r"由 \1 转换而来的记录"),
    # Tests and intervals.
    ("exact McNemar", "McNemar 精确检验"),
    ("sign flip", "符号翻转检验"),
    ("cluster sign flip", "聚类符号翻转检验"),
    ("stratified sign flip", "分层符号翻转检验"),
    ("stratified cluster sign flip", "分层聚类符号翻转检验"),
    ("swap permutation", "互换置换检验"),
    ("swap permutation of clusters", "聚类互换置换检验"),
    ("Bonett-Price", "Bonett-Price 法"),
    ("paired bootstrap over docs", "逐题配对自助法"),
    ("paired bootstrap over clusters", "逐聚类配对自助法"),
    ("jackknife over docs", "逐题刀切法"),
    ("jackknife over clusters", "逐聚类刀切法"),
    ("cluster-robust t", "聚类稳健 t"),
    ("Wilson", "Wilson 法"),
    (r"Wilson, (\d+) clusters", r"Wilson 法，\1 个聚类"),
    ("normal", "正态近似"),
    (r"normal, (\d+) clusters", r"正态近似，\1 个聚类"),
    ("MOVER, parts taken for independent", "MOVER 法（视各部分为独立）"),
    (r"percentile bootstrap over docs, ([\d,]+) draws", r"逐题百分位自助法，抽样 \1 次"),
    (r"percentile bootstrap over clusters, ([\d,]+) draws", r"逐聚类百分位自助法，抽样 \1 次"),
    (r"Wilson at the effective number of docs", "Wilson 法（有效题数）"),
    (
        r"Wilson at the effective number of docs, (\d+) clusters",
        r"Wilson 法（有效题数），\1 个聚类",
    ),
    ("Wilson at the value, for docs without any spread", "按该值的 Wilson 法（各题全无差异）"),
    ("docs without any spread, and no known range", "各题全无差异，且取值范围未知"),
    ("no doc could be scored", "没有可计分的题目"),
    # Charts.
    ("difference in percentage points", "差异（百分点）"),
    ("share of tokens", "词元占比"),
    ("expert", "专家"),
    ("task", "任务"),
    ("confidence in %", "置信度（%）"),
    ("accuracy in %", "正确率（%）"),
    ("generated tokens an answer", "每次作答生成的词元"),
    ("seconds an answer", "每次作答的秒数"),
    ("cost of 1,000 answers", "每千次作答的费用"),
    ("active parameters in billions", "激活参数（十亿）"),
    ("mean score in %", "平均得分（%）"),
    # Metrics.
    ("accuracy", "正确率"),
    ("micro F1", "微平均 F1"),
    ("macro F1", "宏平均 F1"),
    ("weighted F1", "加权 F1"),
    ("support-weighted F1", "按支持数加权的 F1"),
    ("at least one right letter", "至少一个正确字母"),
    ("answered", "已作答"),
    ("malformed", "格式错误"),
    ("probability of all letters together", "所有字母的概率之和"),
    # How a reply was read.
    ("the only option held possible", "唯一认为可能的选项"),
    ("a conclusion on an option's text", "结论为某选项的文字"),
    ("the option's text after an answer cue", "答案提示语后的选项文字"),
    ("a conclusion points to it", "结论指向该项"),
    ("letters at the start", "开头的字母"),
    ("a conclusion", "结论"),
    ("an answer cue", "答案提示语"),
    ("a final answer", "最终答案"),
    ("the reasoning was cut off", "推理被截断"),
    ("the reply is empty", "回答为空"),
    ("the item has no options", "该题没有选项"),
    ("cut off at its token limit before an answer", "作答前达到长度上限"),
    ("the only option set off and not passed over", "唯一突出且未被略过的选项"),
    ("the only option called wrong in conclusion", "结论中唯一被判错的选项"),
    ("a refusal", "拒答"),
    ("goes through the options without deciding", "逐项分析但未作决定"),
    ("a letter with its text", "字母及其选项文字"),
    ("a letter with another option's text", "字母与另一选项的文字"),
    ("a letter and another option's text at once", "同时出现字母与另一选项的文字"),
    ("bare letters", "单独的字母"),
    ("the text of two options", "两个选项的文字"),
    ("the option's text", "选项文字"),
    ("says that no option is right", "认为没有正确选项"),
    ("mentions several options without deciding", "提到多个选项但未作决定"),
    ("named as the answer", "称其为答案"),
    ("verdicts on the options", "对各选项的判断"),
    ("the odd one out of the verdicts", "判断中与众不同的一项"),
    ("calls several options right", "判定多个选项正确"),
    ("contradicts itself", "自相矛盾"),
    ("all other options are called wrong", "其余选项均被判错"),
    ("repeats the options and breaks off", "重复选项后中断"),
    ("no answer found", "未找到答案"),
    ("the only letter in the reply", "回答中唯一的字母"),
    ("names a letter that is no option", "所给字母不是选项"),
    ("highest log-likelihood", "对数似然最高"),
    (r"tie of (.+), credit shared", r"\1 并列，平分得分"),
    ("no finite log-likelihood for each letter", "有字母没有有限的对数似然"),
    (r"as (\S+) reads", r"按 \1 方式读取"),
    ("as read elsewhere", "沿用外部读取结果"),
    ("not read", "未读取"),
    ("well-formed", "格式正确"),
    # What is malformed in a PromptCBLUE reply.
    ("empty", "空"),
    ("no line of an offered type", "没有所列类型的行"),
    ("half-width colon after the type", "类型后为半角冒号"),
    ("something before the type", "类型前有其他文字"),
    ("type that was not offered", "未列出的类型"),
    ("no colon after the type", "类型后没有冒号"),
    ("several types on one line", "一行有多个类型"),
    ("no relation line", "没有关系行"),
    ("something before 具有", "“具有”前有其他文字"),
    ("relation that was not offered", "未列出的关系"),
    ("no 如下： after the relation", "关系后没有“如下：”"),
    ("several relations on one line", "一行有多个关系"),
    ("head without tail", "有头实体而无尾实体"),
    ("text that is no pair", "不成对的文字"),
    ("pair on a line without relation", "实体对所在行没有关系"),
    ("more than one line", "多于一行"),
    ("term that was not offered", "未列出的术语"),
    ("no header line", "没有首行"),
    ("blank line", "空行"),
    ("line without 主体词", "没有“主体词”的行"),
    ("several events on one line", "一行有多个事件"),
    ("text that is no attribute", "不是属性的文字"),
    ("status that was not offered", "未列出的状态"),
    ("line that is no finding", "不是症状或指标的行"),
    ("label inside a longer text", "标签夹在较长文字中"),
    ("label that does not exist", "不存在的标签"),
    # Notes and differences.
    (
        "questions and keys are the answer file's own: nobody compared them with the exam",
        "题目与标准答案来自答案文件本身，未与原考试核对",
    ),
    (r"without (.+)", r"缺 \1"),
    (
        r"rows left out as unusable: (\d+) \((.+)\)",
        r"不可用而略去的行：\1（\2）",
    ),
    (
        r"(\d+) of ([\d,]+) questions have two options of the same text",
        r"\2 题中有 \1 题的两个选项文字相同",
    ),
    (r"(.+) against (.+)", r"\1 对 \2"),
    (r"only (.+) has this task", r"只有 \1 有此任务"),
    (
        r"(\d+) of (\d+) docs are only in the baseline, (\d+) of (\d+) only in the candidate",
        r"基线 \2 题中有 \1 题、候选 \4 题中有 \3 题为一方独有",
    ),
    (
        r"another expected answer for (\d+) of (\d+) docs, the first is (\S+)",
        r"\2 题中有 \1 题的标准答案不同，第一题为 \3",
    ),
    (
        r"another prompt for (\d+) of (\d+) docs, the first is (\S+)",
        r"\2 题中有 \1 题的提示不同，第一题为 \3",
    ),
    (r"(\d+) of (\d+) docs failed", r"\2 题中有 \1 题失败"),
    ("no doc has a number of its own on both sides", "没有题目在两方都有自己的分数"),
    ("every task", "所有任务"),
    ("unknown", "未知"),
)

_COMPILED = tuple((re.compile(english), chinese) for english, chinese in _PHRASES)


def in_chinese(text: str) -> str | None:
    """The Chinese of a text that runs hold; None where none is known here."""
    for english, chinese in _COMPILED:
        if found := english.fullmatch(text):
            return found.expand(chinese)
    if "; " in text:  # several faults of one reply
        parts = [in_chinese(part) for part in text.split("; ")]
        return None if None in parts else "；".join(map(str, parts))
    return None
