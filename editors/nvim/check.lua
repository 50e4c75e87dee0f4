-- Starts the server from a real editor and asks about a real rule file beside the manifest of a
-- real checkpoint:
--   REGRAFT=target/debug/regraft nvim --clean --headless -l editors/nvim/check.lua
-- Before Neovim 0.9, `-l` is `+luafile`.

local failed = false

local function check(what, holds, found)
  if holds then
    print("ok: " .. what .. "\n")
  else
    failed = true
    print("FAILED: " .. what .. ": " .. vim.inspect(found) .. "\n")
  end
end

local function run()
  local path = vim.fn.getcwd() .. "/rules/pinned.graft"
  local lines = vim.fn.readfile("rules/sd_unet_ldm.graft")
  table.insert(lines, 1, "# checkpoint: ../tests/fixtures/layouts/sd_unet_ldm.json")
  table.insert(lines, "drp \"x\"")
  -- The text is the editor's alone: no such file is written.
  local buffer = vim.api.nvim_create_buf(true, false)
  vim.api.nvim_buf_set_name(buffer, path)
  vim.api.nvim_buf_set_lines(buffer, 0, -1, false, lines)
  vim.api.nvim_set_current_buf(buffer)
  vim.bo[buffer].filetype = "graft"
  local server = os.getenv("REGRAFT") or "regraft"
  local id = vim.lsp.start_client({ name = "regraft", cmd = { server, "lsp" }, root_dir = vim.fn.getcwd() })
  check("the server starts", id ~= nil, id)
  vim.lsp.buf_attach_client(buffer, id)

  local function diagnostics()
    return vim.diagnostic.get(buffer)
  end
  vim.wait(10000, function()
    return #diagnostics() > 0
  end, 50)
  local found = diagnostics()[1] or {}
  check("a mistake is told where it is", found.code == "RG102" and found.lnum == #lines - 1, found)

  local function ask(method, text, within)
    for number, line in ipairs(lines) do
      local at = line:find(text, 1, true)
      if at then
        local params = {
          textDocument = { uri = vim.uri_from_bufnr(buffer) },
          position = { line = number - 1, character = at - 1 + within },
          context = { includeDeclaration = true },
        }
        local answers = vim.lsp.buf_request_sync(buffer, method, params, 10000) or {}
        local answer = answers[id] or {}
        return answer.result
      end
    end
  end

  local hover = ask("textDocument/hover", "time_embed.{i", 2) or { contents = {} }
  local text = hover.contents.value or ""
  check("hover counts keys", text:find("4 keys of the checkpoint", 1, true) ~= nil, hover)
  local references = ask("textDocument/references", "let n", 4) or {}
  check("references of a let", #references > 4, references)
  local items = ask("textDocument/completion", "drp", 2) or {}
  local labels = vim.tbl_map(function(item)
    return item.label
  end, items)
  check("statements are completed", vim.tbl_contains(labels, "drop"), labels)
  local symbols = ask("textDocument/documentSymbol", "let n", 0) or { {} }
  check("the outline", symbols[1].name == "ruleset sd_unet_ldm: ldm <-> hub", symbols[1])

  vim.api.nvim_buf_set_lines(buffer, #lines - 1, -1, false, { "drop  \"model.no\"  optional" })
  vim.wait(10000, function()
    for _, one in ipairs(diagnostics()) do
      if one.code == "RG102" then
        return false
      end
    end
    return true
  end, 50)
  vim.lsp.buf_request_sync(buffer, "textDocument/hover", vim.lsp.util.make_position_params(), 10000)
  if vim.lsp.buf.format then
    vim.lsp.buf.format({ timeout_ms = 10000 })
  else
    vim.lsp.buf.formatting_sync(nil, 10000)
  end
  local last = vim.api.nvim_buf_get_lines(buffer, -2, -1, false)[1]
  check("the text is formatted", last == "drop \"model.no\" optional", last)
  vim.lsp.stop_client(id)
end

local ran, why = pcall(run)
if not ran then
  failed = true
  print("FAILED: " .. tostring(why) .. "\n")
end
if failed then
  vim.cmd("cquit 1")
end
vim.cmd("qall!")
