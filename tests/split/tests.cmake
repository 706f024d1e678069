# Split models, from the command line.
add_test(NAME split/split COMMAND sh ${CMAKE_CURRENT_LIST_DIR}/test_split.sh $<TARGET_FILE:tessera> WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
