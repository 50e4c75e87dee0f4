[ (group) (block) ] @fold
(rule (via)) @fold
