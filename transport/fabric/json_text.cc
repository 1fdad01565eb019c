#include "fabric/json_text.h"

#include <algorithm>

namespace tbt::fabric {
namespace {

// The deepest nesting, found without parsing: brackets inside strings do not count.
int nesting_of(std::string_view text) noexcept {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') i++;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if (c == '}' || c == ']') {
      depth--;
    }
  }
  return deepest;
}

}  // namespace

nlohmann::json parse_json_object(std::string_view text) {
  if (text.size() > kJsonBytesMax || nesting_of(text) > kJsonDepthMax) return nullptr;
  auto value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return value.is_object() ? value : nlohmann::json(nullptr);
}

std::optional<uint64_t> json_uint(const nlohmann::json& object, const char* key, uint64_t max) {
  if (!object.is_object()) return std::nullopt;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_number_unsigned()) return std::nullopt;
  const auto value = it->get<uint64_t>();
  return value <= max ? std::optional(value) : std::nullopt;
}

std::optional<std::string> json_string(const nlohmann::json& object, const char* key) {
  if (!object.is_object()) return std::nullopt;
  const auto it = object.find(key);
  if (it == object.end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

std::string json_dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// Hears of each part of the text in turn.
struct FlatObject::Reader : nlohmann::json_sax<nlohmann::json> {
  explicit Reader(FlatObject& to) : object(to) {}

  bool null() override { return put({}); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t) override { return put({}); }
  bool number_unsigned(number_unsigned_t value) override { return put(uint64_t{value}); }
  bool number_float(number_float_t, const string_t&) override { return put({}); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return depth != 0 && open(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (depth == 1) member = name;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

  bool open() {
    if (depth == 1) object.members_[member] = std::monostate{};
    ++depth;
    return true;
  }
  bool close() {
    --depth;
    return true;
  }
  bool put(Value value) {
    if (depth == 1) object.members_[member] = std::move(value);
    return depth != 0;  // a value alone is no object
  }

  FlatObject& object;
  std::string member;
  int depth = 0;
};

bool FlatObject::parse(std::string_view text) {
  if (text.size() > kJsonBytesMax || nesting_of(text) > kJsonDepthMax) return false;
  Reader reader(*this);
  return nlohmann::json::sax_parse(text, &reader);
}

std::optional<bool> FlatObject::flag(const char* key) const {
  const auto it = members_.find(key);
  const bool* value = it != members_.end() ? std::get_if<bool>(&it->second) : nullptr;
  return value != nullptr ? std::optional(*value) : std::nullopt;
}

std::optional<uint64_t> FlatObject::number(const char* key, uint64_t max) const {
  const auto it = members_.find(key);
  const uint64_t* value = it != members_.end() ? std::get_if<uint64_t>(&it->second) : nullptr;
  return value != nullptr && *value <= max ? std::optional(*value) : std::nullopt;
}

std::optional<std::string> FlatObject::text(const char* key) const {
  const auto it = members_.find(key);
  const std::string* value = it != members_.end() ? std::get_if<std::string>(&it->second) : nullptr;
  return value != nullptr ? std::optional(*value) : std::nullopt;
}

}  // namespace tbt::fabric
