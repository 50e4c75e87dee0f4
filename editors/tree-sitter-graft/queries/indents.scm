[ (group) (block) (rule) (arguments) ] @indent.begin
"}" @indent.branch @indent.end
