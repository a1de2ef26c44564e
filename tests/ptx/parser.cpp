// PTX text to functions: statements, variables, operands, labels. Functions other than kernels are
// left out.
#include <algorithm>
#include <cctype>
#include <cstring>
#include <regex>
#include <sstream>

#include "fault.h"
#include "program.h"

namespace ptx {
namespace {

std::string trimmed(const std::string& s) {
  const auto first = s.find_first_not_of(" \t\r\n");
  return first == std::string::npos ? ""
                                    : s.substr(first, s.find_last_not_of(" \t\r\n") - first + 1);
}

// Parts between commas that stand in no bracket.
std::vector<std::string> split(const std::string& s) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (char c : s) {
    depth += std::strchr("{[(", c) ? 1 : std::strchr("}])", c) ? -1 : 0;
    if (c == ',' && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  for (std::string& part : parts) part = trimmed(part);
  if (parts.size() == 1 && parts[0].empty()) parts.clear();
  return parts;
}

int round_up(int n, int to) { return (n + to - 1) / to * to; }

// Without comments and the lines that end with no semicolon.
std::string cleaned(const std::string& text) {
  static const std::regex no_statement(R"(^\s*\.(version|target|address_size|file|loc)\b)");
  std::string out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    line = line.substr(0, line.find("//"));
    if (!std::regex_search(line, no_statement)) out += line + "\n";
  }
  return out;
}

// ".global .align 16 .b8 name[128] = {70, ...}", ".param .u64 name".
struct Variable {
  std::string name;
  int align = 0, bytes = 0, element = 0;
  std::vector<std::string> values;
};

int size_of(const std::string& type) {
  static const std::regex form(R"(\.[busf](8|16|32|64))");
  std::smatch m;
  return std::regex_match(type, m, form) ? std::stoi(m[1]) / 8 : 0;
}

Variable variable(const std::string& text) {
  Variable v;
  const auto equals = text.find('=');
  std::istringstream in(text.substr(0, equals));
  std::string word, last;
  while (in >> word) {
    if (word == ".align") in >> v.align;
    if (const int size = size_of(word)) v.element = size;
    last = word;
  }
  const auto bracket = last.find('[');
  v.name = last.substr(0, bracket);
  v.bytes = v.element * (bracket == std::string::npos ? 1 : std::atoi(last.c_str() + bracket + 1));
  v.align = std::max(v.align, v.element);
  if (equals == std::string::npos) return v;
  std::string values = trimmed(text.substr(equals + 1));
  if (!values.empty() && values[0] == '{') values = values.substr(1, values.size() - 2);
  v.values = split(values);
  return v;
}

// Where a variable of the module lies, for all functions.
using Symbols = std::map<std::string, Register>;

class FunctionParser {
 public:
  FunctionParser(Function& function, const Symbols& globals) : f_(function), symbols_(globals) {}

  void parameters(const std::string& list) {
    for (const std::string& text : split(list)) {
      const Variable v = variable(text);
      const int at = round_up(f_.parameter_bytes, v.align);
      symbols_[v.name] = {"", Initial::parameter, Bits(at)};
      f_.parameters.push_back({at, v.bytes});
      f_.parameter_bytes = at + v.bytes;
    }
  }
  void statement(const std::string& text) {
    if (text.empty() || text.compare(0, 4, ".reg") == 0) return;
    if (text.compare(0, 6, ".local") == 0)
      return place(variable(text), Initial::local, f_.local_bytes);
    if (text.compare(0, 7, ".shared") == 0)
      return place(variable(text), Initial::shared, f_.shared_bytes);
    if (text[0] != '.') instruction(text);
  }
  void label(const std::string& name) { labels_[name] = int(f_.code.size()); }
  void finish() {
    for (const auto& [at, name] : jumps_) {
      if (!labels_.count(name)) throw Fault("no label " + name + " in " + f_.name);
      f_.code[at].target = labels_[name];
    }
    Instruction end;
    end.flow = Flow::end, end.text = "ret (the end)";
    f_.code.push_back(end);
  }

 private:
  void place(const Variable& v, Initial space, int& used) {
    used = round_up(used, v.align);
    symbols_[v.name] = {"", space, Bits(used)};
    used += v.bytes;
  }

  int register_named(const std::string& name, Initial initial = Initial::nothing, Bits value = 0) {
    const auto [found, is_new] = numbers_.try_emplace(name, int(f_.registers.size()));
    if (is_new) f_.registers.push_back({name, initial, value});
    return found->second;
  }
  int constant(Bits value) {
    return register_named("#" + std::to_string(value), Initial::constant, value);
  }

  // The register of an operand that is no list and no address; -1 where it makes no sense.
  int operand(const std::string& s) {
    static const std::map<std::string, Initial> special = {
        {"%tid.x", Initial::tid_x},     {"%ctaid.x", Initial::ctaid_x},
        {"%ntid.x", Initial::ntid_x},   {"%nctaid.x", Initial::nctaid_x},
        {"%laneid", Initial::laneid},   {"%tid.y", Initial::constant},
        {"%tid.z", Initial::constant},  {"%ctaid.y", Initial::constant},
        {"%ctaid.z", Initial::constant}};
    if (const auto i = special.find(s); i != special.end()) return register_named(s, i->second);
    if (const auto i = symbols_.find(s); i != symbols_.end())
      return register_named("&" + s, i->second.initial, i->second.value);
    if (s[0] == '%' || s == "_") return register_named(s);
    if (s[0] == '0' && s.size() > 2 && std::strchr("fFdD", s[1]))
      return constant(std::strtoull(s.c_str() + 2, nullptr, 16));
    if (s[0] == '-') return constant(Bits(std::strtoll(s.c_str(), nullptr, 0)));
    return std::isdigit(static_cast<unsigned char>(s[0]))
               ? constant(std::strtoull(s.c_str(), nullptr, 0))
               : -1;
  }

  // Adds an operand: "%r1", "{%f1, %f2}", "%r1|%p1", "[%rd1+8]".
  bool add(const std::string& s, Instruction& at, std::vector<int>& to) {
    std::vector<std::string> parts = {s};
    if (s[0] == '{') parts = split(s.substr(1, s.size() - 2));
    if (const auto bar = s.find('|'); bar != std::string::npos)
      parts = {s.substr(0, bar), s.substr(bar + 1)};
    if (s[0] == '[') {
      const std::string inside = trimmed(s.substr(1, s.size() - 2));
      const auto sign = inside.find_first_of("+-");
      parts = {trimmed(inside.substr(0, sign))};
      if (sign != std::string::npos)
        at.offset = std::strtoll(inside.c_str() + sign + (inside[sign] == '+'), nullptr, 0);
    }
    for (const std::string& part : parts) to.push_back(part.empty() ? -1 : operand(part));
    return std::find(to.begin(), to.end(), -1) == to.end();
  }

  void instruction(const std::string& text) {
    Instruction at;
    at.text = std::regex_replace(text, std::regex(R"(\s+)"), " ");
    std::string rest = at.text;
    if (rest[0] == '@') {
      at.unless = rest[1] == '!';
      const auto space = rest.find(' ');
      at.guard = register_named(rest.substr(1 + at.unless, space - 1 - at.unless));
      rest = rest.substr(space + 1);
    }
    const auto space = rest.find(' ');
    std::string name = rest.substr(0, space);
    const std::vector<std::string> operands =
        split(space == std::string::npos ? "" : rest.substr(space + 1));
    if (name.compare(0, 3, "bra") == 0 && operands.size() == 1)
      jumps_.emplace_back(int(f_.code.size()), operands[0]);
    else if (!add_all(name, operands, at))
      name += ".of what is not known";
    decode(name, at);
    f_.code.push_back(std::move(at));
  }
  // The first operand is written, unless the instruction has none such.
  bool add_all(const std::string& name, const std::vector<std::string>& operands, Instruction& at) {
    const bool writes = name.compare(0, 3, "st.") != 0 && name.compare(0, 3, "bar") != 0;
    bool known = name.compare(0, 4, "call") != 0;
    for (std::size_t i = 0; i < operands.size(); ++i)
      known = known && add(operands[i], at, writes && i == 0 ? at.to : at.from);
    return known;
  }

  Function& f_;
  Symbols symbols_;
  std::map<std::string, int> numbers_, labels_;
  std::vector<std::pair<int, std::string>> jumps_;
};

class ModuleParser {
 public:
  ModuleParser(const std::string& text, Program& program)
      : text_(cleaned(text)), program_(program) {}

  void parse() {
    while (skip_space()) {
      const std::string head = until(";{=");
      if (head.find(".entry") != std::string::npos || head.find(".func") != std::string::npos) {
        if (next() == '{') body(head);
      } else {
        const bool values = next() == '=';
        global(variable(head + (values ? "=" + until(";") : "")));
      }
    }
  }

 private:
  bool skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
    return at_ < text_.size();
  }
  char next() const { return text_[at_ - 1]; }  // the character that ended until()
  std::string until(const char* ends) {
    const auto end = text_.find_first_of(ends, at_);
    if (end == std::string::npos)
      throw Fault("the text ends within `" + text_.substr(at_, 60) + "`");
    const std::string found = trimmed(text_.substr(at_, end - at_));
    at_ = end + 1;
    return found;
  }

  void global(const Variable& v) {
    program_.globals.push_back(std::make_unique<std::vector<unsigned char>>(v.bytes + v.align));
    std::vector<unsigned char>& bytes = *program_.globals.back();
    const std::size_t shift =
        (v.align - reinterpret_cast<std::uintptr_t>(bytes.data()) % v.align) % v.align;
    for (std::size_t i = 0; i < v.values.size(); ++i) {
      const Bits value = std::strtoull(v.values[i].c_str(), nullptr, 0);
      std::memcpy(bytes.data() + shift + i * v.element, &value, v.element);
    }
    const auto address = reinterpret_cast<std::uintptr_t>(bytes.data()) + shift;
    globals_[v.name] = {"", Initial::constant, Bits(address)};
    program_.global_regions.emplace_back(address, v.bytes);
  }

  void body(const std::string& head) {
    Function ignored;
    const auto entry = head.find(".entry");
    const auto open = head.find('(', entry == std::string::npos ? 0 : entry);
    const std::string name =
        entry == std::string::npos ? "" : trimmed(head.substr(entry + 6, open - entry - 6));
    Function& function = entry == std::string::npos ? ignored : program_.kernels[name] = {};
    function.name = name;
    FunctionParser parser(function, globals_);
    if (entry != std::string::npos && open != std::string::npos)
      parser.parameters(head.substr(open + 1, head.find(')', open) - open - 1));
    for (int depth = 1; depth > 0;) {
      if (!skip_space()) throw Fault("the text ends within " + head);
      if (text_[at_] == '{' || text_[at_] == '}')
        depth += text_[at_++] == '{' ? 1 : -1;
      else
        statement(parser);
    }
    parser.finish();
  }
  void statement(FunctionParser& parser) {
    const auto word_end = text_.find_first_not_of(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$", at_);
    if (word_end != std::string::npos && text_[word_end] == ':') {
      parser.label(text_.substr(at_, word_end - at_));
      at_ = word_end + 1;
    } else {
      parser.statement(until(";"));
    }
  }

  const std::string text_;
  Program& program_;
  Symbols globals_;
  std::size_t at_ = 0;
};

}  // namespace

void parse(const std::string& text, Program& program) { ModuleParser(text, program).parse(); }

}  // namespace ptx
