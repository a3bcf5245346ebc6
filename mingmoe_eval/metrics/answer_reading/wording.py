"""The words in which replies state, reject and weigh options, in English, Chinese and Japanese.

Patterns over sentences that `mentions` has marked and put into small letters. Each is bounded, so
that no reply takes more than linear time. What they mean together, `statements` says.
"""

import re

from mingmoe_eval.metrics.answer_reading.mentions import GROUP, MARK

# What may stand between a cue's verb and the option itself.
FILL = (
    r"(?:[\s:\"'(\[{<=,【】-]|[.]{3}|\b(?:the|an?|options?|choices?|letters?|number|most"
    r"|more|likely|probably|best"
    r"|definitely|clearly|indeed|therefore|thus|hence|both|simply|to|that|as|follows|indicated|by"
    r"|of|in|due"
    r"|described|represented|given|labell?ed|listed|statement|answer|correct|following|final|would"
    r"|be|is)\b"
    r"|\d{1,2}[.)]|应该|应当|应为|应是|应|就是|是|为|选项|选择|答案|第|以下|下列|[「『【《]){0,14}"
)
ONLY_FILL = re.compile(FILL)
LINK_ENGLISH = re.compile(
    rf"(?:.{{0,140}}?(?:\b(?:is|are|was|were|be|being|remains|becomes)\b|[:=→]|->)|\s?-)?{FILL}"
)
LINK_REQUIRED = re.compile(
    rf".{{0,170}}?(?:\b(?:is|are|was|were|be|being|includes?|remains)\b|:){FILL}"
)
LINK_CHINESE = re.compile(
    rf"(?:.{{0,24}}?(?:应该?是|应当是|应该?为|应当为|就是|只有|包括|有|是"
    rf"|(?<![因认作成称分视])为|选择?|[:=-]|は|が))?{FILL}"
)
LINK_CHINESE_REQUIRED = re.compile(
    rf".{{0,40}}?(?:应该?是|应当是|应该?为|应当为|就是|只有|包括|有|是|(?<![因认作成称分视])为|即"
    rf"|[:=]|は|が){FILL}"
)

NEGATION = re.compile(
    r"\b(?:not|never|none|neither|nor|cannot|no|incorrect(?:ly)?|wrong(?:ly)?|false|except"
    r"|unlikely|less|lacks?"
    r"|without|rul(?:e|es|ed|ing) out|exclud\w+|eliminat\w+|distractors?|contradicts?|against"
    r"|insufficient)\b|n't\b"
    r"|不|非(?!常)|没|未|无法|无关|错|误|排除|除了|除外|并未|否定|矛盾|可能性(?:较|更|很)?(?:小|低)|较少|少见|次要"
    r"|低于|有限|其他|其余|另外|干扰"
)
# In the link of an answer cue these words lead somewhere else: "the answer, let's analyze ...".
ELSEWHERE = re.compile(
    r"\b(?:not|never|none|neither|nor|cannot|no|incorrect|wrong|false|except|unlikely|analy[sz]\w*"
    r"|consider\w*|let|let's"
    r"|explanations?|reasoning|rationale|each|which|between|among|if|depend\w*|eliminat\w*|because"
    r"|than|instead|unlike"
    r"|other|others|possible|rule[sd]? out|explain\w*|look|review|evaluate\w*|options:|choices:"
    r"|below|above|why|when|one of"
    r"|whether|but|based on|from|either|step by step|compare\w*|determine\w*)\b|n't\b"
    r"|解析|分析|说明|解释|理由|原因|不|没|未|非|错误|在于|需要|应该?根据|如下选项|哪"
)
# Between a superlative and its verb: "the most likely cause is not", "the best of the others is".
OPPOSED = re.compile(
    r"\b(?:not|never|none|neither|nor|cannot|unlikely|other|others|if|whether|than|but|or"
    r"|differential|alternative)\b|n't\b"
    r"|不|没|未|非|若|如果|其他|其余"
)
UNSURE = re.compile(
    r"\b(?:(?:could|might|may|can)\s(?:\w+\s)?be|possibly|perhaps|maybe|one possibility)\b"
    r"|(?<!最)可能|也许|或许|大概"
)
ASKS = re.compile(r"\s?(?:吗|么|\?)")
HYPOTHETICAL = re.compile(
    r"\b(?:if|were|unless|had)\b.{0,200}?\b(?:would|could|might)\b|\bwould\b.{0,200}?\bif\b"
    r"|\bif\b[^.]{0,60}\b(?:asks?"
    r"|asked|question)\b|(?:(?<!假)若(?!干)|如果|假如|倘若|假设|(?<![主重需])要是)"
)
REJECTED_AFTER = re.compile(
    r"\s?(?:的?说法|的?描述|的?叙述)?(?:都|均|也)?(?:是|为)?\s?(?:错|不正确|不对|不符|不是|不选)"
    r"|\s(?:is|was)\s(?:\w+ly\s)?(?:not|incorrect|wrong|false|true|inaccurate|ruled)\b"
    r"|\s?(?:では|じゃ)\s?な[いく]"
    r"|\s?(?:吗|么|\?)|\s(?:through|to)\s(?=" + MARK + ")|等?(?:选项)?(?:中|之中|里)"
)
OTHERWISE = re.compile(
    r"\b(?:rather than|instead of|unlike|as opposed to|in contrast|whereas|compared (?:to|with)"
    r"|while|although|though"
    r"|but not|and not|not)\b|而不是|而非|不是|不选|而其他|其他|其余|相比|相较|虽然|尽管"
)

# --- cues ---------------------------------------------------------------------------------------

FINAL_CUE = (
    r"\b(?:final|ultimate)\s(?:answer|choice|response|decision|selection)\b|(?:最终"
    r"|最后)的?(?:答案|选择|结论|选项)"
)
ANSWER_CUE = (
    r"\banswers?\b|\b(?:correct|best|right|appropriate|suitable|accurate|chosen|selected|my|our)\s"
    r"(?:options?|choices?|ones?|selection|response|letters?|statements?)\b"
)
ANSWER_CUE_CHINESE = (
    r"答案|正解|正答|解答|回答|答え"
    r"|(?<!不)(?:正确|最佳|最合适|最恰当|最适合|最适宜|合适|恰当|符合(?:题意|题干|要求)?|最优|应选"
    r"|最符合(?:题意)?)的?"
    r"(?:选项|选择|一项|项|说法|叙述|描述|搭配|组合|表述|是|有|为)(?:有|包括)?"
    r"|(?<![\u4e00-\u9fff])(?:选项|选择|结论)\s?(?=:|应?该?(?:是|为))|而是|应该是|应当是|应是|应为"
    r"|当选的?(?:是|为)"
)
VERB_CUE = (
    r"\b(?:choos(?:e|es|ing)|chose|select(?:s|ed|ing)?|pick(?:s|ed|ing)?|go(?:ing|es)? with"
    r"|opt(?:s|ed|ing)? for"
    r"|lean(?:s|ing|ed)? towards?|settle on|mark(?:ed)?)\b"
    r"|(?<!(?<!应)当)(?<![挑备误筛竞入任多单漏错供候改精文手待可])选(?!项|择题|手|举|修)(?:择|取|定"
    r"|答)?[了的]?(?:答案|选项)?"
)
CUE = re.compile(
    f"(?P<final>{FINAL_CUE})|(?P<chinese>{ANSWER_CUE_CHINESE})|(?P<english>{ANSWER_CUE})"
    f"|(?P<verb>{VERB_CUE})"
)
# What may lie between each kind of cue and the option that it announces.
LINKS = {
    "final": (LINK_ENGLISH, LINK_CHINESE),
    "english": (LINK_ENGLISH,),
    "chinese": (LINK_CHINESE,),
    "verb": (ONLY_FILL,),
}
CUE_NEGATED_BEFORE = re.compile(
    r"(?:不|误|错|勿|未|没有?|莫|(?<![分特鉴性判区])别|若|如果|假如|漏|其他|其它|其余"
    r"|另外|几个|四个|五个|所有|以上|这些|备"
    r"|错误的?)(?:应该?|能|可以?|要|宜|会|必|得|再|的)?$"
    r"|(?:\bnot|n't|\bnever|\bcannot|\bif you|\bif we|\bincorrectly|\bincorrect|\bwrong|\bother"
    r"|\bwould have|\bmistakenly"
    r"|\bstudents?|\bwhy|\bpossible|\bto)\s(?:\w{1,10}\s)?$"
)
REASON_OF_VERB_CUE = re.compile(r"\s(?:if|when|unless)\b")

# "Answer E would be reasonable, but": the letter is the subject of a clause, and not announced.
IS_SUBJECT = re.compile(
    r"\s(?!(?:because|since|as|with|due|for|and|is (?:the )?(?:correct|right|best|most))\b)[a-z]"
)
SUPERLATIVE = re.compile(
    r"\b(?:(?:most|best|next|first|true|likeliest|correct|only|primary|main|strongest|highest"
    r"|lowest"
    r"|greatest|key|appropriate"
    r"|preferred|first-line|initial|least|responsible|expected|diagnosis|cause|mechanism|treatment"
    r"|drug|step|management|finding|complication"
    r"|explanation|test|therapy|agent|organism|pathogen|factor|condition|option|structure"
    r"|choice of)\b)"
    r"|最(?!后|近|初|终|多|少|大|小|高|低)[\u4e00-\u9fff]{1,12}?|诊断|首选|病因|错误"
    r"|不正确|不符合|不属于|不包括|不恰当|正确"
)
CONCLUDES = re.compile(
    r"\b(?:therefore|thus|hence|so(?!\s(?:is|are|was|far|much|that|called|on)\b)|accordingly"
    r"|consequently|conclusion|summary|overall"
    r"|ultimately)\b"
    r"|因此|所以|故(?!障|事|意)|综上|综合|由此|可见|可知|总之|总结|最终|したがって|よって"
)
THAT_IS = re.compile(
    r"(?:即|也就是|就是|对应的?是?|相当于|\bi\.?e\.?,?|\bthat is,?|\bnamely|\bwhich is"
    r"|\b(?:stated|described|outlined|shown|listed|given|represented|indicated|reflected|classified"
    r"|labell?ed|included) (?:in|as|by)|\bcorrespond(?:s|ing)? (?:to|with)|\bmatch(?:es)?"
    r"|\baligns? (?:best )?with|\bpoint(?:s|ing) to"
    r"|\bconsistent with|\bit(?:'s| is))\s?$"
)
MAKES = re.compile(
    r"\b(?:mak(?:es?|ing)|leav(?:es?|ing)(?: us with)?|render(?:s|ing)?|identif(?:y|ies) )\b"
)

IS = re.compile(r"\b(?:is|are|be|includes?)\b|[是为]")
MAKES_IT = re.compile(
    r"\b(?:mak(?:es|ing)|rendering) (?:it|this|that|this option) (?:the |a )?"
    r"(?:most|best|correct|only|ideal|preferred|right)\b"
)

# --- predicates ---------------------------------------------------------------------------------

APPOSITION = (
    r"(?:\s?\([^()]{1,80}\))?(?:\s?[,(:-]\s?[^.;。]{1,160}?[,)-][\"']?"
    r"|\s[\"'(][^\"')]{1,160}[\"')],?"
    r"|\s[a-z][^.,;:。]{0,90}?,?)?"
)
ADVERBS = (
    r"(?:(?:the|an?|also|thus|therefore|clearly|likely|considered|indeed|by far|probably|generally"
    r"|typically|still|our|my|both|to be|all)\s){0,4}"
)
DEFINITE = (
    r"(?:(?:(?:single|most|more|best|correct|right|only|preferred|ideal|optimal|accurate|suitable"
    r"|appropriate|next)\s){1,3}(?:\w+\s){0,2}?(?:answers?|choices?|option)\b|(?<=the )answer\b"
    r"|(?:most|best|likeliest|preferred|ideal|optimal|closest|strongest)\b|least likely\b"
    r"|(?<=the )next\s(?:\w+\s){0,2}(?:step|test|action)\b"
    r"|(?:the\s)?(?:only\s)?(?:correct|right|incorrect|false|only|exception)\b(?=\s(?:one"
    r"|statement|option|choice|answer|diagnosis|step|treatment)))"
)
IS_DEFINITE_ENGLISH = re.compile(
    rf"{APPOSITION}\s(?:is|was|are|were|would be|will be|should be|must be|seems?(?: to be)?"
    rf"|appears?(?: to be)?|remains|represents|being|as|becomes|provides|offers|(?:best"
    rf"|most)\s\w+)\s{ADVERBS}"
    rf"(?!not\b|less\b)(?P<what>{DEFINITE})"
)
MADE = re.compile(
    rf"{APPOSITION}\s(?:as\s|to be\s)?(?:the\s|a\s)?(?:most|best|more|correct|only|right|ideal"
    rf"|likely|preferred|answer|better|appropriate)\b"
)
BEST_DESCRIBES = re.compile(rf"{APPOSITION}\s(?:best|most\s\w+ly|correctly|accurately)\s\w+")
ADVERBS_CHINESE = (
    r"(?:才|就|即|应该?|应当|最|更|均|都|也|完全|可能|无疑|显然|明显|确实|仍然?|被认为"
    r"|可以|作为|而言|属于|,|\s|:|-){0,5}"
)
IS_DEFINITE_CHINESE = re.compile(
    r"(?:[,(\"':-]?[^。;,不非未没]{1,40}?[,)\"'」]?)??"
    + ADVERBS_CHINESE
    + r"(?:错误?|对|正确|不正确)?,?(?:故|因此)?(?:是|为|属于|符合|当属|乃)?(?:本题|该题|此题|题目)?"
    r"的?(?:[^。,;不非未没错误\ue000-\ue300]{0,16}?)"
    r"(?P<what>(?:最?(?:正确|佳|合适|恰当|适合|适宜|优|好)的?)(?:答案|选择"
    r"|选项)|答案|最(?:可能|合适|恰当|佳|好|适宜|适合|符合|全面|准确|主要|常见|优|有效"
    r"|直接|重要|贴切|合理|为)|当选)"
)
# Without one of these no predicate says that an option is the answer.
PREDICATE_NEEDS = (
    *("answer", "choice", "option", "most", "best", "correct", "right", "likel", "prefer", "ideal"),
    *("optimal", "next", "closest", "strongest", "only", "exception", "incorrect", "false", "more"),
    *("better", "appropriate", "accurate", "答案", "选", "最"),
)
NAMES_THE_ANSWER = re.compile(
    r"\b(?:correct|right|best|most (?:appropriate|likely|suitable|probable)|likeliest)\b"
    r"|答案|选择|选项|最(?:可能|合适|恰当|佳|适宜|适合|符合)"
)
NAMED_CHINESE = re.compile(
    r"(?:选项|项)?(?:说法|描述|叙述)?(?:错误?|对|正确|不正确|有误|不符)?,?(?:故|因此"
    r"|所以)?[为是](?:本题|该题|此题|该问题|这道题|本问题|题目)?的?(?:最?(?:正确|佳|合适|恰当"
    r"|优)的?)?(?:答案|选择|选项)"
)

RIGHT = (
    r"正确|准确|对(?=[,，。;)\s:√]|$|[\ue000-\ue300]|的)|符合|当选|应选|恰当|合理|√"
    r"|(?:the\s)?(?:correct|true|right|accurate|valid)\b"
)
WRONG = (
    r"错|不正确|不对|不符|不当选|不应选|(?:不选"
    r"|应?(?:予以)?排除)(?![\ue000-\ue300])|×|不恰当|不合适|不合理|不妥|有误"
    r"|不适[合用宜]|不准确|不相符|不是(?:本题)?的?(?:最?(?:正确|佳|合适"
    r"|恰当)的?)?(?:答案|选择|选项)"
    r"|incorrect\b|wrong\b|false\b|inaccurate\b|ruled out\b|not (?:the |a |entirely "
    r"|completely )?(?:(?:correct|right|best|most) )?(?:answer|true|correct|right|best|appropriate"
    r"|accurate|likely|valid|choice|option)\b"
)
VERDICT_CHINESE = re.compile(
    r"(?:[两三四五]?项|选项)?\s?[:,.、(-]{0,2}\s?(?:的?(?:说法|描述|叙述|表述|观点|内容"
    r"|陈述|定义)?(?:都|均|也|全部|完全|是|为|最|更|较|就|则|应|被|描述|说法){0,4})"
    rf"(?:(?P<wrong>{WRONG})|(?P<right>{RIGHT}))"
)
VERDICT_ENGLISH = re.compile(
    r"(?:\s?[.:(-]{1,2}\s?(?:this |it |that )?(?:(?:statement|option|choice"
    r"|answer) )?(?:is )?(?:also )?|,?\s(?:is|are|was)\s(?:also |both |all |clearly |partially "
    r"|therefore |thus )?)"
    rf"(?:(?P<wrong>{WRONG})|(?P<right>{RIGHT}))"
)
LABEL = re.compile(
    rf"\s{{0,3}}(?:\d{{1,2}}[.)]\s?)?(?:option |answer |choice )?({MARK})\s?(?:[.:、,)-]|项|选项)?"
)
VERDICT_AT_END = re.compile(
    rf"(?:[:,(>-]\s?(?:故|应|所以|因此|this is |so |thus )?|\s(?:is|are)\s)(?:的?(?:说法|描述|叙述"
    rf"|表述)?(?:都|均|也)?(?:是|为)?(?:最|完全)?)(?:(?P<wrong>{WRONG})|(?P<right>{RIGHT}))"
    r"(?:题意|要求|的|选项|误|答案|answer|choice|option|statement)?[\s.)]*$"
)

NONE = re.compile(
    r"\bnone of (?:the |these |them\b|those )?(?:above|options?|choices?|answers?|listed|given"
    r"|provided|statements?|four|five|"
    + MARK
    + r")|\bno (?:correct|right|suitable|valid) (?:answers?|options?|choices?)\b"
    r"|\b(?:answer|option) is not (?:listed|given|provided|among)"
    r"|\b(?:all|both) (?:of )?(?:the |these )?(?:options?|choices?|answers?)?\s?(?:are"
    r"|is) (?:incorrect|wrong|false)\b"
    r"|(?:以上|上述|所有|全部|四个|五个)(?:选项|答案|各项|几项)?(?:中)?(?:都|均|皆|全)(?:不|错"
    r"|非|无)|没有(?:一个)?(?:正确|合适|恰当)的?(?:答案|选项)|无(?:正确|合适)(?:答案|选项)"
)
# Without one of these the pattern cannot match; to look for them is much cheaper.
NONE_NEEDS = (
    *("none of", "no correct", "no right", "no suitable", "no valid", "not listed", "not given"),
    *("not provided", "not among", "are incorrect", "are wrong", "are false", "is incorrect"),
    *(
        "is wrong",
        "is false",
        "以上",
        "上述",
        "所有",
        "全部",
        "四个",
        "五个",
        "没有",
        "无正确",
        "无合适",
    ),
)
# What others do, or one might: "students often choose A", 很多考生会误选A.
OF_OTHERS = re.compile(
    r"\b(?:students?|people|candidates?|often|tempt\w*|mistak\w*|trap)\b|误选|易错|容易|考生|干扰"
)
MAY_BE = re.compile(
    r"(?:\b(?:could|might|may|can) (?:also )?be(?: the)?|(?<!最)可能也?是|也许是|或许是)\s?$"
)
LEFT_OPEN = re.compile(r"要么.{1,40}要么")
NONE_OF_OTHERS = re.compile(r"\bother|remaining|rest\b|其他|其余")
IS_NONE = re.compile(
    r"\b(?:answer|choice|option)\b[^.\n]{0,30}?(?:\bis\b|:)\s?(?:none|not\b|unknown|unclear)"
    r"|答案[^。\n]{0,8}(?:以上|无|都不)"
)
NOT_BUT = re.compile(
    rf"\bnot\s{MARK},?\s(?:but|rather)\s(?:rather\s)?(?P<g>{GROUP})|(?:不是|并非){MARK},?(?:而是"
    rf"|是)(?P<h>{GROUP})|\bneither\b.{{1,40}}?\bbut\s(?:rather\s)?(?P<i>{GROUP})"
)
# One option set above another: "it could be A, but B is more likely", "B seems better than A",
# B比A更合适.
_MORE = r"(?:more|better|best|likelier|preferable|preferred|superior|safer|stronger|closer)"
PREFERRED = re.compile(
    rf"(?:\bbut\b|\bhowever,?|\bthough\b|\bwhile\b|\balthough\b)[^.]{{0,80}}?(?P<g>{GROUP})"
    rf"\s(?:is|seems|appears|looks|would be)\s(?:(?!not\b)\w+\s)?{_MORE}\b"
    rf"|(?P<h>{GROUP})\s(?:is|seems|appears|looks|would be)\s(?:(?!not\b)\w+\s)?{_MORE}\b"
    rf"[^.,;]{{0,40}}?\b(?:than|to|over)\s{MARK}"
    rf"|(?:但是?|不过|而)[^。]{{0,30}}?(?P<i>{GROUP})(?:则|似乎|显得|会)?(?:是|为)?更"
    rf"|(?P<j>{GROUP})比{MARK}(?:要|则|会)?更"
)


ENDS_CLAUSE = re.compile(
    r"\s?(?:$|[,.;:)(\"'-]|(?:because|since|as|which|due|given|and|for|in|with|by|to|from|based"
    r"|after|at|on|caused)\b|检查|治疗|的|[,(]|这|因为)"
)

ENDS_SENTENCE = re.compile(r"[\s)\"'.]{0,4}$")

IS_RIGHT_BEFORE = re.compile(r"(?:\b(?:is|be|are)|[是为即:])\s?$")
IS_BEFORE = re.compile(r"(?:\b(?:is|are|be)(?: the| an?)?|[是为即])\s?$")

OTHERS_BEFORE = re.compile(
    r"(?:\bother|\bothers|\bremaining|\brest|其他|其它|其余|另外|另)[^.。;]{0,24}$"
)

REJECTS = re.compile(
    r"(?:(?:排|剔)除了?|不选择?|不考虑|\b(?:exclud(?:e|es|ed|ing)|rul(?:e|es|ed|ing) out"
    r"|eliminat(?:e|es|ed|ing)"
    r"|discard(?:s|ed|ing)?|reject(?:s|ed|ing)?)(?: the)?)\s?$"
)
DISFAVOURED = re.compile(
    r"[^.。;\ue000-\ue300]{0,70}?(?:\b(?:not|unlikely|less|irrelevant|unrelated|inappropriate"
    r"|unnecessary|contraindicated|ruled out|excluded|eliminated|discarded|rejected)\b|n't\b"
    r"|不(?:太|够|完全)?(?:符合|正确|合适|恰当|适合|适宜|属于|支持|常见|典型|相符|匹配|准确)"
    r"|可能性(?:较|更|很)?(?:小|低)"
    r"|较少见|少见|无关|可?排除|有误)"
)

STRONGLY_WRONG = re.compile(r"错|不正确|不妥|不对|不恰当|不符合|incorrect|wrong|false")
