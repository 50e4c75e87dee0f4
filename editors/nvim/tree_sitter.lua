-- Colours and folds by the grammar in editors/tree-sitter-graft, for Neovim 0.11 or newer: REGRAFT_HOME is where the repository lies, and
-- the parser was built by `cc -shared -fPIC -O2 -I src src/parser.c src/scanner.c -o graft.so` there.
local home = assert(os.getenv("REGRAFT_HOME"), "REGRAFT_HOME is not set") .. "/editors/tree-sitter-graft/"

vim.filetype.add({ extension = { graft = "graft" } })
vim.treesitter.language.add("graft", { path = home .. "graft.so" })
for _, name in ipairs({ "highlights", "folds", "locals" }) do
  local file = assert(io.open(home .. "queries/" .. name .. ".scm"))
  vim.treesitter.query.set("graft", name, file:read("a"))
  file:close()
end
vim.api.nvim_create_autocmd("FileType", {
  pattern = "graft",
  callback = function()
    vim.treesitter.start()
    vim.wo.foldmethod, vim.wo.foldexpr = "expr", "v:lua.vim.treesitter.foldexpr()"
    vim.wo.foldlevel = 99
  end,
})
