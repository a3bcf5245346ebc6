"""Numbers and their doubt: pure functions of what was answered, without torch or lm-eval.

metric            the record that a metric is, and how docs are counted for it
choice_accuracy, label_f1, tuple_f1, rouge, of_lm_eval
                  the metrics themselves
resampling        how sure a metric is, of one model and of two
uncertainty       intervals in closed form
paired, draws     differences of two models over the same docs; docs drawn and swapped at random
significance      what differences over several tasks prove
showing           numbers in their unit, and which is the best
answer_reading    what a reply answers
"""
