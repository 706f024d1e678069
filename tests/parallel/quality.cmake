# What PipeFusion loses, with the embedded model; the measure is that of bench/quality.c.
add_executable(test_quality parallel/test_quality.c)
target_include_directories(test_quality PRIVATE .)
target_link_libraries(test_quality quality)
add_test(NAME parallel/quality COMMAND test_quality WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(parallel/quality PROPERTIES TIMEOUT 900)
