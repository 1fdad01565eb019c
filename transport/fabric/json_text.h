// JSON from somebody else: parsed within bounds, without exceptions, and read with checked
// accessors.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace tbt::fabric {

inline constexpr size_t kJsonBytesMax = 64 * 1024;
inline constexpr int kJsonDepthMax = 16;

// An object, or a null value if the text is too long, too deep, or no JSON object.
nlohmann::json parse_json_object(std::string_view text);

// The member, if it is there and of that kind and at most `max`.
std::optional<uint64_t> json_uint(const nlohmann::json& object, const char* key, uint64_t max);
std::optional<std::string> json_string(const nlohmann::json& object, const char* key);

// Never throws: bytes that are no UTF-8 are replaced.
std::string json_dump(const nlohmann::json& value);

// The members of an object that are no objects or arrays themselves. Read without a tree of
// nlohmann::json: the destructor of one allocates, and ends the process where there is no memory;
// an application that attaches shall be told ENOMEM instead (std::bad_alloc is thrown).
class FlatObject {
 public:
  // False: not an object, or too large or deep.
  bool parse(std::string_view text);
  [[nodiscard]] std::optional<bool> flag(const char* key) const;
  [[nodiscard]] std::optional<uint64_t> number(const char* key, uint64_t max) const;
  [[nodiscard]] std::optional<std::string> text(const char* key) const;

 private:
  struct Reader;
  using Value = std::variant<std::monostate, bool, uint64_t, std::string>;
  std::map<std::string, Value, std::less<>> members_;
};

}  // namespace tbt::fabric
