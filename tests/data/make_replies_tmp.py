import json
O={
 "zh5":{"A":"青霉素","B":"多巴胺","C":"肾上腺素","D":"阿托品","E":"地塞米松"},
 "zh4":{"A":"甲硝唑","B":"替硝唑","C":"头孢曲松","D":"阿莫西林"},
 "art":{"A":"硬化","B":"动脉硬化","C":"冠状动脉硬化","D":"肝"},
 "exam":{"A":"X线检查","B":"CT","C":"B超","D":"MRI","E":"无法判断"},
 "hep":{"A":"A型肝炎","B":"B型肝炎","C":"C型肝炎","D":"以上都是"},
 "blood":{"A":"A型","B":"B型","C":"AB型","D":"O型"},
 "en4":{"A":"Aspirin","B":"Dopamine","C":"Vitamin C","D":"E. coli infection"},
 "en5":{"A":"Disclose the error to the patient","B":"Tell the attending","C":"Report the physician","D":"Refuse to dictate the operative report","E":"Dictate the report as told"},
 "yn":{"A":"yes","B":"no","C":"maybe"},
 "ten":{c:f"statement number {i}" for i,c in enumerate("ABCDEFGHIJ",1)},
 "gap":{"A":"头痛","B":"发热","D":"咳嗽","E":"腹泻"},
 "lower":{"A":"paralysis of the facial muscles.","B":"loss of taste.","C":"decreased salivation.","D":"loss of smell."},
}
rows=[]
def r(opts,single,reply,want,rule=None): rows.append((opts,single,reply,want,rule))
S,M=True,False
# bare
for reply,want in [("B","B"),("B.","B"),(" b ","B"),("(B)","B"),("（B）","B"),("Ｂ","B"),("**B**","B"),("选项B","B"),("Ⓑ","B"),("B。","B"),("$B$","B"),("`B`","B"),("[B]","B"),("【B】","B"),("Option B","B"),("B项","B"),("\u202aB\u202c","B"),("🅱","B"),("𝐁","B")]:
    r("zh5",S,reply,want,"bare letters")
for reply,want in [("AC","AC"),("A、C","AC"),("A,C","AC"),("A, C","AC"),("A and C","AC"),("A和C","AC"),("C A","AC"),("ＡＣ","AC"),("A;C;D","ACD"),("A/C","AC"),("ABCDE","ABCDE"),("(A)(C)","AC"),("ac","AC"),("a, c","AC"),("**A、C**","AC"),("A\nC","AC"),("AAC","AC"),("D","D")]:
    r("zh5",M,reply,want,"bare letters")
r("zh5",S,"AC","A","bare letters, the first of several letters")
r("zh5",S,"B\n\n解析：多巴胺可以增加肾血流量，A、C均不正确。","B","bare letters")
r("zh5",S,"B\n\n题目：下列哪项不是抗生素？\nA. 青霉素\nB. 红霉素\n答案：D","B")
r("zh5",S,"答案是B。\n\n问题2：休克首选？\n答案是D。","B")
r("zh5",S,"F",None,"names a letter that is no option")
r("zh5",M,"AF",None,"names a letter that is no option")
r("gap",S,"C",None,"names a letter that is no option")
r("gap",M,"ABDE","ABDE")
r("ten",S,"J","J"); r("ten",S,"I","I"); r("ten",S,"(I)","I")
# letter with text
r("zh5",S,"B. 多巴胺","B","a letter with its text")
r("zh5",S,"B、多巴胺。","B"); r("zh5",S,"B 多巴胺","B"); r("zh5",S,"**B. 多巴胺**","B")
r("zh5",S,"多巴胺","B","the option's text"); r("zh5",S,"多巴胺。","B")
r("en4",S,"B. Dopamine","B"); r("en4",S,"dopamine","B"); r("en4",S,"B) Dopamine","B")
r("exam",S,"E. 无法判断","E","a letter with its text"); r("exam",S,"无法判断","E")
r("lower",S,"A. paralysis of the facial muscles","A")
r("art",S,"冠状动脉硬化","C"); r("art",S,"动脉硬化","B"); r("art",S,"D. 肝","D"); r("art",S,"肝","D")
# cues chinese
for reply,want in [("答案是B","B"),("答案：B","B"),("答案:B","B"),("答案为B。","B"),("答案B","B"),("【答案】B","B"),("【答案】B【解析】A为抗生素，C为激素。","B"),("正确答案是：**B**","B"),("正确答案：B. 多巴胺","B"),("故选B","B"),("故选 B。","B"),("故本题应选B。","B"),("应选择B","B"),("因此，正确答案应该是B。","B"),("本题选B。","B"),("最佳选项是B","B"),("正确的选项为B","B"),("正确的是B。","B"),("选项是B","B"),("答案应为选项B","B"),("答案是（B）","B"),("答案是“B”","B"),("答案是：\nB","B"),("### 答案\n**B**","B"),("答案是b","B"),("综合以上分析，本题答案为：B多巴胺。","B"),("我选择B，因为多巴胺可扩张肾血管。","B"),("答案是多巴胺。","B"),("正确答案是：多巴胺（B）","B"),("考虑患者休克，应首选B。","B"),("最终答案：\\boxed{B}","B"),("答案：$\\boxed{\\text{B}}$","B"),("答案不是A，而是B。","B"),("不选A，选B。","B"),("有人误选A，本题应选B。","B"),("很多考生会误选A。答案是B。","B"),("答案是B，不选A。","B"),("如果选A则错误，故选B。","B"),("答案是B。容易误选A。","B"),("首先看A，青霉素是抗生素；C是激素。所以答案是B","B"),("先认为答案是A。但再想，答案是B。","B"),("最合适的是B。","B"),("因此B。","B"),("B项正确，故选B项。","B"),("答案是A吗？不是，应该是B。","B"),("B选项是正确答案","B"),("选项B正确。","B")]:
    r("zh5",S,reply,want)
for reply,want in [("答案是AC","AC"),("答案：A、C、D","ACD"),("正确答案为A和C。","AC"),("故选ACD。","ACD"),("答案是A, C","AC"),("应选A、B、D、E","ABDE"),("正确的选项有A、C。","AC"),("正确的有ACE","ACE"),("正确答案包括A、C","AC"),("答案是：A. 青霉素；C. 肾上腺素","AC"),("正确答案：\nA. 青霉素\nC. 肾上腺素","AC"),("故选A（青霉素）、C（肾上腺素）。","AC"),("答案是青霉素和肾上腺素。","AC"),("答案：A C D","ACD"),("答案是ＡＢ","AB"),("选A、C，不选B。","AC"),("答案是A、C。B、D、E均错误。","AC"),("【答案】ABD【解析】C、E错误。","ABD"),("答案是选项A和选项C。","AC"),("\\boxed{A, C}","AC"),('{"answer": ["A", "C"]}',"AC"),('{"answer": [\n  "A",\n  "C"\n]}',"AC"),('{"答案": "AC"}',"AC"),("A、C正确，B、D、E错误。","AC"),("A对，B错，C对，D错，E错","AC"),("A. 正确\nB. 错误\nC. 正确\nD. 错误\nE. 错误","AC"),("A. 青霉素：正确\nB. 多巴胺：错误\nC. 肾上腺素：正确","AC"),("（A对）青霉素……（B错）（C对）（D错）（E错）","AC"),("A ✓\nB ✗\nC ✓\nD ✗\nE ✗","AC"),("选项A、B、C都是正确的。","ABC"),("以上五项均可选，答案是ABCDE。","ABCDE")]:
    r("zh5",M,reply,want)
# english cues
for reply,want in [("The answer is B.","B"),("The correct answer is (B).","B"),("Answer: B","B"),("Answer: B. Tell the attending","B"),("**Answer:** B","B"),("**Answer: B**","B"),("Answer - B","B"),("Answer\n\nB","B"),("The correct option is B because it is honest.","B"),("Therefore, the answer is B","B"),("Therefore, B.","B"),("I would choose B.","B"),("I'd go with option B.","B"),("My final answer is **B**.","B"),("The best answer is: B) Tell the attending","B"),("So the answer would be B.","B"),("\\boxed{B}","B"),("Final answer: $\\boxed{\\textbf{(B)}}$","B"),('{"answer": "B"}','B'),('{"answer":"B","explanation":"A is wrong"}','B'),("answer: b","B"),("The answer is b.","B"),("The answer is not A but B.","B"),("The answer is B, A is wrong.","B"),("Option B is correct.","B"),("B is the correct answer.","B"),("The best choice would be option B, not A.","B"),("A is incorrect. C is incorrect. D is wrong. E is false. Thus B is correct.","B"),("A: false\nB: true\nC: false\nD: false\nE: false","B"),("A. Disclose the error to the patient - Incorrect\nB. Tell the attending - Correct\nC. Report the physician - Incorrect","B"),("The answer is tell the attending.","B"),("I think it's B.","B"),("B, because the attending must know.","B"),("A is wrong, C is wrong, D is wrong, and E is wrong.","B"),("At first A seems right. The answer is A. Wait: on reflection, the answer is B.","B"),("<answer>B</answer>","B"),("Among A through E, the answer is B","B"),("Answer: Option B","B"),("The most appropriate next step is B.","B")]:
    r("en5",S,reply,want)
for reply,want in [("The answers are A and C.","AC"),("Answer: A, C","AC"),("A and C are correct.","AC"),("The correct answers are A, C, and D.","ACD"),("Correct options: A, C","AC"),("The answer is A. Disclose the error to the patient and C. Report the physician.","AC"),("A is correct. B is incorrect. C is correct. D is incorrect. E is incorrect.","AC")]:
    r("en5",M,reply,want)
# traps
for o,s,reply,want in [("en4",S,"A patient with chest pain should be given drugs.",None),("en4",S,"A patient with shock needs support. The answer is B.","B"),("en4",S,"I believe a vasopressor is needed.",None),("en4",S,"Vitamin C","C"),("en4",S,"The answer is Vitamin C.","C"),("en4",S,"The patient has hepatitis B and needs rest.",None),("en4",S,"T cell and B cell counts are low.",None),("en4",S,"The answer is E. coli infection.","D"),("en4",S,"Dopamine is the drug of choice here.","B"),("exam",S,"答案是B超。","C"),("exam",S,"首选CT检查","B"),("hep",S,"答案是B型肝炎","B"),("blood",S,"AB型","C"),("blood",S,"答案是B","B"),("zh5",M,"本病选用ACE抑制剂治疗。",None),("zh5",S,"患者缺乏维生素C。",None),("zh5",S,"ACTH分泌增多。",None),("zh5",S,"",None),("zh5",S,"   \n ",None),("zh5",S,"这道题考查药理学知识。",None),("zh5",S,"The answer is F.",None),("zh5",M,"答案是AF。",None),("en4",S,"A correct diagnosis needs a history.",None),("ten",S,"I do not see one.",None),("art",S,"患者肝功能异常。",None),("yn",S,"There is no difference between the groups in the yes-saying tendency",None)]:
    r(o,s,reply,want)
# yes/no/maybe
for reply,want in [("yes","A"),("No.","B"),("Maybe","C"),("Yes, because the trial showed a benefit.","A"),("No, there is no evidence for it.","B"),("The answer is yes.","A"),("Answer: maybe","C"),("**Yes**","A"),("B","B"),("Based on the abstract, the answer is no.","B"),("Answer: A. yes","A"),("(C) maybe","C"),("Not enough information.",None),("Nobody knows.",None)]:
    r("yn",S,reply,want)
# thinking
for reply,want in [("<think>答案是A？不，不对。</think>\n答案是B","B"),("<think>\nThe answer is A\n</think>\n\nB","B"),("reasoning says A\n</think>\nB","B"),("<think>答案是A，但是",None),("B\n<think>答案是A",'B'),("◁think▷A◁/think▷B","B"),("<|begin_of_thought|>A<|end_of_thought|><|begin_of_solution|>B<|end_of_solution|>","B"),("[THINK]A[/THINK]B","B"),("<seed:think>A</seed:think>B","B"),("<unused94>thought\nA<unused95>B","B"),("<|channel|>analysis<|message|>A?<|end|><|start|>assistant<|channel|>final<|message|>B<|return|>","B"),("## Thinking\n\nIs it A?\n\n## Final Response\n\n答案是B。","B"),("## Thinking\n\nThe answer is A",None),("<think></think>",None),("<THINK>A</THINK>B","B"),("<think>A</think><think>C</think>B","B")]:
    r("zh5",S,reply,want)
# refusals, undecided, truncated
for reply,want,rule in [("抱歉，我无法回答这个问题。",None,"a refusal"),("作为一个人工智能语言模型，我不能提供医疗建议，请咨询医生。",None,"a refusal"),("无法确定正确答案。",None,"a refusal"),("信息不足，无法判断。",None,"a refusal"),("A. 青霉素\nB. 多巴胺\nC. 肾上腺素\nD. 阿托品\nE. 地塞米松",None,"goes through the options without deciding"),("青霉素和多巴胺都可能。",None,None),("首先分析各选项：\nA. 青霉素是一种抗生素，主要用于",None,None),("A、B都正确。",None,"calls several options right"),("A错误，B错误，C错误，",None,None),("可能是A，也可能是C。",None,None)]:
    r("zh5",S,reply,want,rule)
for reply,rule in [("I'm sorry, but I can't help with medical advice.","a refusal"),("As an AI, I cannot determine the answer.","a refusal"),("It cannot be determined from the given data.","a refusal"),("Either A or C could be right.",None)]:
    r("en5",S,reply,None,rule)
# negative stems
r("zh4",S,"A正确，B正确，D正确，C错误。","C","the odd one out of the verdicts")
r("zh4",S,"A. 甲硝唑：错误。\nB. 替硝唑：错误。\nC. 头孢曲松：正确。\nD. 阿莫西林：错误。","C")
r("zh4",S,"错误的是C。","C"); r("zh4",S,"不正确的选项是C","C")
r("zh4",S,"正确答案是C。错误选项是A、B、D。","C")
r("zh4",M,"A. 甲硝唑\nB. 替硝唑","AB")
r("zh4",M,"甲硝唑、替硝唑","AB")
r("zh4",M,"可用甲硝唑和替硝唑，不选头孢曲松。","AB")
r("zh4",S,"A部分正确，B完全正确。","B")
r("exam",S,"CT","B"); r("exam",S,"CT。","B"); r("zh5",S,"Be",None); r("en5",S,"A is wrong.",None); r("zh5",S,"B。因为A错误，C错误。","B")
r("zh5",S,"答案在于对药理的理解，因为B是多巴胺，所以选B。","B")
r("zh5",S,"本题考查多巴胺的药理作用。多巴胺可激动多巴胺受体。","B")
r("zh5",S,"分析：A选项青霉素，为抗生素，不符合题意；B选项多巴胺，为血管活性药，符合题意；C选项不符合。","B")
r("zh5",S,"解：根据题干，患者出现休克，宜用血管活性药物。青霉素为抗菌药（A错）。多巴胺为首选（B对）。","B")
r("zh5",M,"A项：青霉素是抗生素，正确。\nB项：多巴胺不是抗生素，错误。\nC项：肾上腺素，错误。\nD项：错误。\nE项：正确。","AE")
r("zh5",S,"您好！根据您的描述，这道题的答案应该是选项B，也就是多巴胺。希望对您有帮助！","B")
r("zh5",S,"The correct answer is B (多巴胺).","B")
r("zh5",S,"Answer：Ｂ","B")
r("zh5",S,"答案：B\n解析：A是抗生素，C是激素，D是抗胆碱药。","B")
r("zh5",S,"B。多巴胺能够扩张肾血管，增加肾血流量，适用于休克伴少尿的患者。","B")
r("zh5",S,"B\n","B"); r("zh5",S,"B<|im_end|>","B"); r("zh5",S,"B</s>","B")
r("zh5",M,"本题正确答案为ABCD，其中E错误。","ABCD")
r("zh5",M,"【正确答案】 A, B, D","ABD")
r("zh5",M,"参考答案：A、B、D、E","ABDE")
r("zh5",M,"答案是A、B、C，理由如下：……D、E不符合题意。","ABC")
r("zh5",M,"根据分析，选项A、选项C和选项E正确。","ACE")
r("zh5",M,"正确选项：A.青霉素 B.多巴胺","AB")
r("zh5",M,"应选：AB","AB")
r("en5",S,"Let's think step by step.\n1. The resident made an error.\n2. Honesty is required.\n\nThus, the best answer is **B. Tell the attending**.","B")
r("en5",S,"The correct answer, given the attending's instruction, is option (B).","B")
r("en5",S,"Correct Answer: B\n\nExplanation:\nA: Not appropriate.\nC: Too early.","B")
r("en5",S,"**Final Answer**\n\nB. Tell the attending","B")
r("en5",S,"The answer is (b)","B")
r("en5",S,"Based on the scenario, option B (Tell the attending) is the most appropriate.","B")
r("en5",S,"It's not A. It's not C. The answer isn't D either. The answer is B.","B")
r("en5",S,"The answer is A. Hmm, but A is not honest. Therefore the correct answer is B.","B")
r("en5",S,"answer is B</think>B","B")
r("en5",S,"The incorrect statement is C. So the answer is C.","C")
r("en5",S,"A. Disclose the error to the patient is not enough alone, so I select B.","B")
r("en5",M,"Answer: A and D only","AD")
r("en5",M,"The correct answers are:\n- A. Disclose the error to the patient\n- D. Refuse to dictate the operative report","AD")
r("en5",M,"The correct answers are:\n\n1. **A. Disclose the error to the patient**\n2. **D. Refuse to dictate the operative report**","AD")
r("en5",S,"Hepatitis B serology is positive, so the answer is D.","D")
r("en4",S,"The answer is vitamin C","C"); r("en4",S,"Answer: C. Vitamin C","C"); r("en4",S,"A vasopressor such as dopamine","B")
for reply,want in [("B是对的","B"),("B多巴胺","B"),("选项 B：多巴胺","B"),("应该选择的是B","B"),("考虑到以上因素，B是最合适的选择。","B"),("综合来看，选项B（多巴胺）最为合适。","B"),("A×，B√，C×","B"),("A错，为本题正确答案；B对；C对；D对；E对。","A"),("答案选择B、D","B"),("可能是A或B。",None),("答案是A或B",None),("答案：\n\nB. 多巴胺\n\n解析：\nA. 青霉素：抗生素\nC. 肾上腺素：用于过敏性休克","B")]:
    r("zh5",S,reply,want)
for reply,want in [("A选项正确；C选项正确；其余错误。","AC"),("综上，A、C、E三项正确。","ACE"),("A+C","AC"),("答案：\nA\nC\nE","ACE"),("正确答案：A.青霉素、C.肾上腺素。","AC"),("除B外，其余都正确。",None),("D错，为本题正确答案。E错，为本题正确答案。A对，B对，C对。","DE")]:
    r("zh5",M,reply,want)
for reply,want in [("The answer is either A or B, but I lean towards B.","B"),("The answer is A or B.",None),("ANSWER: B","B"),("Correct: B","B"),("So, it's B.","B"),("I'd pick B over A.","B"),("A 65-year-old resident should be honest.",None),("Answer- B (see the guideline)(Ref: BDC p. 238)","B"),("The answer is C, not B.","C"),("$$\\boxed{B}$$","B"),("Let's analyze each option.\n\nA. Disclose the error to the patient: too early.\nB. Tell the attending: This is the standard.\nC. Report the physician: no.\n\nThe answer is: B","B")]:
    r("en5",S,reply,want)
with open("tests/data/replies.jsonl","w") as f:
    for n,(o,s,reply,want,rule) in enumerate(rows,1):
        d={"options":O[o],"single":s,"reply":reply,"letters":want}
        if rule: d["rule"]=rule
        f.write(json.dumps(d,ensure_ascii=False)+"\n")
print(len(rows))
