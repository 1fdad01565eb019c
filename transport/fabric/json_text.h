// JSON from somebody else: parsed within bounds, without exceptions, and read with checked
// accessors.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

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

}  // namespace tbt::fabric
